"""In which fields the configurations of runs differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

# Where a machine keeps what is read: no part of an experiment.
_PLACES = ("data.dir", "perceptual.dir", "tokens", "eval_tokens")
ABSENT = object()

# These change where a run reads, where it computes, how fast, and the order in which it adds;
# never what it computes. What it starts from counts before the first step alone.
FREE_FIELDS = (
    *("data.dir", "data.threads", "data.workers", "perceptual.dir", "codebook.base_file"),
    *("mesh", "codebook.shard_lookup", "deterministic"),
    *("tokens", "eval_tokens", "init_from"),
)


def differing_fields(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The fields that are not equal in all configurations.

    Args:
      configs: flat, whole also where they are older ones, by the name of the run.

    Returns:
      By dotted name the value of each run, in their order; ABSENT where it has none. The folders
      of data and weights are left out.
    """
    found = unequal_fields(list(configs.values()))
    return {name: values for name, values in found.items() if name not in _PLACES}


def unequal_fields(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """As differing_fields, of all fields.

    Args:
      configs: flat.

    Returns:
      By dotted name the value of each; ABSENT where it has none.
    """
    names = dict.fromkeys(name for config in configs for name in sorted(config))
    values = {
        name: [config[name] if name in config else ABSENT for config in configs] for name in names
    }
    return {
        name: found for name, found in values.items() if any(value != found[0] for value in found)
    }


def shown(value: Any) -> str:
    """A field's value in a table: text as it is, all else as JSON has it."""
    if value is ABSENT:
        return "–"
    if isinstance(value, str) and value:
        return value
    return json.dumps(value, ensure_ascii=False)
