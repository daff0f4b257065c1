"""In which fields the configurations of runs differ."""

import json
from collections.abc import Mapping
from typing import Any

# Where a machine keeps what is read: no part of an experiment.
_PLACES = ("data.dir", "perceptual.dir")
ABSENT = object()


def differing_fields(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The fields that are not equal in all configurations.

    Args:
      configs: flat, whole also where they are older ones, by the name of the run.

    Returns:
      By dotted name the value of each run, in their order; ABSENT where it has none. The folders
      of data and weights are left out.
    """
    names = dict.fromkeys(name for config in configs.values() for name in sorted(config))
    values = {
        name: [config.get(name, ABSENT) for config in configs.values()]
        for name in names
        if name not in _PLACES
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
