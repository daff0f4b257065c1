"""The configuration of a run's folder, in the form of an experiment: `stored.py:FOLDER`.

The command line loads it as it loads configs/X.py; nothing in the folder is run.
"""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from mq_jax.runs.workdir import read_config


def get_config(folder: str) -> ConfigDict:
    """The configuration of a run, whole also where it is an older one.

    Args:
      folder: of the run.

    Returns:
      A ConfigDict of the kinds of values that an experiment has.

    Raises:
      FileNotFoundError: the folder has no config.json.
      ValueError: config.json is damaged, or that of another program.
    """
    fields = _with_tuples(read_config(folder))
    try:
        return ConfigDict(fields).lock()
    except (AttributeError, ValueError) as error:
        # A name that no field can have, which a ConfigDict tells without any file's.
        path = pathlib.Path(folder) / "config.json"
        raise ValueError(f"{path} holds no configuration of a run: {error}") from error


def _with_tuples(value: Any) -> Any:
    """JSON has no tuples, and experiments have no lists."""
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
