"""What the last evaluation of the best state saw, for the report: codes, codewords, pictures."""

import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from mq_jax.runs.files import replacing

FILE = "snapshot.npz"


class Snapshot(NamedTuple):
    """The model at one step.

    Attributes:
      step: inner updates taken.
      counts: i64[K], how often each code occurs in the evaluation set.
      codebook: f32[K, D].
      originals: u8[N, H, W, 3].
      reconstructions: u8[N, H, W, 3].
    """

    step: int
    counts: np.ndarray
    codebook: np.ndarray
    originals: np.ndarray
    reconstructions: np.ndarray


def write_snapshot(folder: pathlib.Path, snapshot: Snapshot) -> None:
    """Writes `snapshot.npz`, whole or not at all.

    Args:
      folder: of the run.
      snapshot: replaces the one that is there.
    """
    with replacing(folder / FILE) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **snapshot._asdict())


def read_snapshot(folder: pathlib.Path) -> Snapshot:
    """Reads `snapshot.npz`.

    Args:
      folder: of the run.

    Returns:
      A Snapshot.

    Raises:
      FileNotFoundError: there is none; says how to make it.
      ValueError: the file is damaged.
    """
    path = folder / FILE
    remedy = f"make it: python -m mq_jax.main --mode=evaluate --workdir={folder}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in Snapshot._fields}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
    return Snapshot(**{**arrays, "step": int(arrays["step"])})
