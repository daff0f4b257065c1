"""Configurations and checkpoints of before: what they lack, and the values that stand for it."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

# Fields that configurations gained after the first runs, in the order in which they came.
ADDED: dict[str, Any] = {
    "data.holdout": "every-tenth",
    "data.icc": False,
    # Where Pillow refused an image.
    "data.max_pixels": 178_956_970,
    "data.max_bytes": 0,
    "deterministic": False,
}

# Trees of arrays that checkpoints gained, by path, and those whose values they begin with.
ADDED_ARRAYS = {"state/ema/batch_stats": "state/batch_stats"}


def beginnings(stored: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """The arrays that a checkpoint lacks because it is older than they are.

    Args:
      stored: paths of the checkpoint's arrays.
      wanted: paths of the model's.

    Returns:
      Paths of stored arrays, whose values they begin with, by the paths that lack.
    """
    found = {}
    for tree, origin in ADDED_ARRAYS.items():
        # In their order, which is the same in every process.
        for name in wanted:
            begins_as = origin + name.removeprefix(tree)
            if name.startswith(f"{tree}/") and name not in stored and begins_as in stored:
                found[name] = begins_as
    return found


def lacking(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a stored configuration lacks because it is older than they are.

    Args:
      config: nested, as config.json has it.

    Returns:
      Values by dotted name; empty for a configuration of today.
    """
    return {name: value for name, value in ADDED.items() if not _has(config, name.split("."))}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the fields that it lacks.

    Args:
      config: nested, as config.json has it; not changed.

    Returns:
      A nested configuration.

    Raises:
      TypeError: what should be a section holds a value.
    """
    whole = copy.deepcopy(dict(config))
    for name, value in lacking(config).items():
        *sections, field = name.split(".")
        inner = whole
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise TypeError(f"{section} is no section of fields")
        inner[field] = value
    return whole


def _has(config: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(config, Mapping) or key not in config:
            return False
        config = config[key]
    return True
