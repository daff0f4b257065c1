"""What the last evaluation of the best state saw, for the report: codes, codewords, pictures."""

import os
import pathlib
import shlex
from typing import NamedTuple

import numpy as np

from mq_jax.storage.archive import Stored, read_arrays
from mq_jax.storage.files import replacing

FILE = "snapshot.npz"

_STORED = {
    "step": Stored("iu", 0),
    "counts": Stored("iu", 1),
    "codebook": Stored("f", 2),
    "originals": Stored("u", 4),
    "reconstructions": Stored("u", 4),
}
# Files of before do not say of what they are.
_OPTIONAL = {"about": Stored("U", 0)}
_MOST_CHARACTERS = 1000


class Snapshot(NamedTuple):
    """The model at one step.

    Attributes:
      step: inner updates taken.
      counts: i64[K], how often each code occurs in the evaluation set.
      codebook: f32[K, D].
      originals: u8[N, H, W, 3].
      reconstructions: u8[N, H, W, 3].
      about: set, split, number and side of the images that were evaluated; "" in files of before.
    """

    step: int
    counts: np.ndarray
    codebook: np.ndarray
    originals: np.ndarray
    reconstructions: np.ndarray
    about: str = ""


def write_snapshot(folder: pathlib.Path, snapshot: Snapshot) -> None:
    """Writes `snapshot.npz`, whole or not at all.

    Args:
      folder: of the run.
      snapshot: replaces the one that is there.
    """
    # First, where no damaged entry of the directory can swallow it; an empty text has no bytes.
    fields = {"about": snapshot.about} if snapshot.about else {}
    fields |= {name: getattr(snapshot, name) for name in _STORED}
    with replacing(folder / FILE) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **fields)


def read_snapshot(folder: str | os.PathLike) -> Snapshot:
    """Reads `snapshot.npz`.

    Args:
      folder: of the run.

    Returns:
      A Snapshot, whose arrays belong together.

    Raises:
      FileNotFoundError: there is none; says how to make it.
      ValueError: the file is damaged.
    """
    path = pathlib.Path(folder) / FILE
    command = f"python -m mq_jax.main --mode=evaluate --workdir={shlex.quote(str(folder))}"
    try:
        arrays = read_arrays(path, _STORED, optional=_OPTIONAL)
        about = str(arrays.pop("about", ""))
        found = Snapshot(**{**arrays, "step": int(arrays["step"]), "about": about})
        _require_whole(found)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist; make it: {command}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); make it: {command}") from error
    return found


def _require_whole(found: Snapshot) -> None:
    """Raises unless the arrays belong together."""
    if len(found.about) > _MOST_CHARACTERS:
        raise ValueError(f"its text has {len(found.about):,} characters")
    codes = found.counts.shape == found.codebook.shape[:1] and found.codebook.size
    codes = codes and np.isfinite(found.codebook).all() and found.counts.min() >= 0
    pictures = found.originals.shape == found.reconstructions.shape
    pictures = pictures and found.originals.shape[3] == 3 and found.originals.dtype == np.uint8
    pictures = pictures and found.reconstructions.dtype == np.uint8
    if not (codes and pictures and found.step >= 0):
        shapes = ", ".join(f"{n} {list(np.shape(getattr(found, n)))}" for n in list(_STORED)[1:])
        raise ValueError(f"its arrays do not belong together or are not finite: {shapes}")
