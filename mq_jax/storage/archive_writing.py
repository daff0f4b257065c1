"""Writing archives of arrays, .npz files, that are larger than memory."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mq_jax.storage.files import replacing


class Rows(NamedTuple):
    """An array that comes in parts.

    Attributes:
      shape: of the whole.
      dtype: likewise.
      parts: its rows, in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Iterable[np.ndarray]


def write_archive(path: pathlib.Path, arrays: Mapping[str, Rows]) -> None:
    """Writes an .npz file, whole or not at all, as numpy.savez would.

    Args:
      path: of the file; its folder exists.
      arrays: by name; equal ones make equal bytes, whenever they are written.

    Raises:
      OSError: it cannot be written.
      ValueError: the parts of an array are not what it was said to be.
    """
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, rows in arrays.items():
            # A ZipInfo without a time has that of 1980.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                _write(file, name, rows)


def _write(file, name, rows: Rows) -> None:
    """One member."""
    dtype, count = np.dtype(rows.dtype), 0
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": rows.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in rows.parts:
        if part.shape[1:] != rows.shape[1:] or part.dtype != dtype:
            raise ValueError(
                f"A part of {name} is {part.dtype}{list(part.shape)}; expected {dtype}[N, "
                f"{', '.join(map(str, rows.shape[1:]))}]."
            )
        file.write(np.ascontiguousarray(part).data)
        count += len(part)
    if count != rows.shape[0]:
        raise ValueError(f"{name} has {count} rows; expected {rows.shape[0]}.")
