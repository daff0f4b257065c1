"""Which formats an export is written in, and whether they hold its model."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from mq_jax.formats.diffusers import DIFFUSERS
from mq_jax.formats.pytorch import PYTORCH
from mq_jax.formats.taming import TAMING
from mq_jax.tokenizers.export_writing import Format

# The last one holds every model.
FORMATS = {each.name: each for each in (DIFFUSERS, TAMING, PYTORCH)}


def chosen(names: Collection[str], architecture: Mapping[str, Any]) -> tuple[Format, ...]:
    """The formats of these names.

    Args:
      names: of FORMATS.
      architecture: of the model that they are to hold.

    Returns:
      Formats, each once, in the order of FORMATS.

    Raises:
      ValueError: one is unknown, or cannot hold the model; says which one can.
    """
    for name in names:
        if name not in FORMATS:
            expected = ", ".join(FORMATS)
            raise ValueError(f"--formats has {name!r}; expected of {expected}, divided by commas.")
        if problem := FORMATS[name].problem(architecture):
            able = next(n for n, each in FORMATS.items() if each.problem(architecture) is None)
            raise ValueError(
                f"--formats={name} cannot hold this model: {problem}; --formats={able} can."
            )
    return tuple(each for name, each in FORMATS.items() if name in names)


def present(folder: pathlib.Path) -> list[str]:
    """The formats in which an export lies there.

    Args:
      folder: of the export, or of none.

    Returns:
      Names of FORMATS.
    """
    return [name for name, each in FORMATS.items() if (folder / each.place).exists()]
