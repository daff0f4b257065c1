"""What the codebook of a run started from, where that was made of data."""

from __future__ import annotations

import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from mq_jax.runs.records import read_record, write_record
from mq_jax.storage.schema import SHA256, TEXT

FILE = "base.json"

_SCHEMA = {"origin": TEXT, "sha256": SHA256}


class Base(NamedTuple):
    """The bases of a run.

    Attributes:
      origin: what they were made of, for people.
      sha256: of them, as digest tells it.
    """

    origin: str
    sha256: str


def digest(tables: np.ndarray) -> str:
    """The SHA-256 of bases.

    Args:
      tables: f32[T, K, D_e].

    Returns:
      Hexadecimal digits, of the numbers in their order, whatever the machine's byte order.
    """
    return hashlib.sha256(np.ascontiguousarray(tables, "<f4").tobytes()).hexdigest()


def write_base(folder: pathlib.Path, base: Base) -> None:
    """Writes `base.json`, whole or not at all.

    Args:
      folder: of the run.
      base: replaces what is there.
    """
    write_record(folder / FILE, base)


def read_base(folder: pathlib.Path) -> Base | None:
    """Reads `base.json`.

    Args:
      folder: of the run.

    Returns:
      A Base; None where there is none.

    Raises:
      ValueError: the file is damaged.
    """
    stored = read_record(folder / FILE, _SCHEMA)
    return None if stored is None else Base(*(stored[name] for name in Base._fields))
