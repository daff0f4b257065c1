"""Archives of arrays, .npz files: all of them are read here, and none is trusted.

What a member declares is held against limits before a byte of it is decompressed.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mq_jax.storage.files import open_bounded

# Of all arrays that are asked for, decompressed; a snapshot or a reference has some megabytes.
MOST_BYTES = 2**31


class Stored(NamedTuple):
    """What an array of an archive must be.

    Attributes:
      kinds: letters of NumPy's dtype.kind, any of which it may have.
      ndim: its axes, or each number of them that it may have.
    """

    kinds: str
    ndim: int | tuple[int, ...]


def read_arrays(
    source: str | os.PathLike | bytes,
    expected: Mapping[str, Stored],
    *,
    optional: Mapping[str, Stored] = MappingProxyType({}),
    most: int = MOST_BYTES,
) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz file; nothing is unpickled.

    Args:
      source: the path of the file, or its content.
      expected: what to read; other members are left alone.
      optional: what to read beside, unless the archive has exactly what is expected.
      most: bytes that these arrays may have together.

    Returns:
      The arrays by name, writable.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, not of this kind, or too large; one line, which does not name it.
    """
    try:
        with _opened(source, most) as file, zipfile.ZipFile(file) as archive:
            if set(archive.namelist()) != {f"{name}.npy" for name in expected}:
                expected = {**expected, **optional}
            members = {name: _member(archive, name) for name in expected}
            total = sum(member.file_size for member in members.values())
            if total > most:
                raise ValueError(f"its arrays have {total:,} bytes; expected at most {most:,}")
            return {name: _stored(archive, members[name], expected[name]) for name in expected}
    except FileNotFoundError:
        raise
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is no whole .npz file: {error}") from error
    # Archive, compression and header each raise their own, from KeyError to zlib.error.
    except Exception as error:
        raise ValueError(_in_one_line(error)) from error


def read_array(
    source: str | os.PathLike, expected: Stored, *, most: int = MOST_BYTES
) -> np.ndarray:
    """Reads the array of an .npy file; nothing is unpickled.

    Args:
      source: the path of the file.
      expected: what it must be.
      most: bytes that it may have.

    Returns:
      The array, writable.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: as read_arrays.
    """
    try:
        with _opened(source, most) as file:
            return _array(file, os.fstat(file.fileno()).st_size, "it", expected)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(_in_one_line(error)) from error


def _in_one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, ValueError | OSError) else repr(error)
    return " ".join(text.split())


@contextlib.contextmanager
def _opened(source: Any, most: int) -> Iterator[BinaryIO]:
    """The file, no larger than its arrays may be; its headers have room in what is over."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    with open_bounded(source, most + 2**20) as file:
        yield file


def _member(archive, name) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(f"{name}.npy")
    except KeyError:
        raise ValueError(f"it has no array {name!r}") from None


def _stored(archive: zipfile.ZipFile, member: zipfile.ZipInfo, expected: Stored) -> np.ndarray:
    """One array; the archive's checksum is looked at where its end is read."""
    with archive.open(member) as file:
        name = member.filename.removesuffix(".npy")
        return _array(file, member.file_size, name, expected)


def _array(file: BinaryIO, file_size: int, name: str, expected: Stored) -> np.ndarray:
    """The array of an open file of so many bytes."""
    shape, fortran, dtype = _header(file)
    axes = expected.ndim if isinstance(expected.ndim, tuple) else (expected.ndim,)
    if dtype.kind not in expected.kinds or len(shape) not in axes:
        raise ValueError(
            f"{name} is {dtype}{list(shape)}; expected {' or '.join(map(str, axes))} axes and "
            f"a dtype of kind {' or '.join(expected.kinds)}"
        )
    size = math.prod(shape) * dtype.itemsize
    left = file_size - file.tell()
    if min(shape, default=1) < 0 or not dtype.itemsize or size != left:
        raise ValueError(f"{name} is {dtype}{list(shape)}, and has {left:,} bytes")
    data = bytearray(size)
    _fill(file, memoryview(data), name)
    array = np.frombuffer(data, dtype) if data else np.zeros(0, dtype)
    if dtype.kind == "U" and data and array.view(f"{dtype.byteorder}u4").max() > sys.maxunicode:
        raise ValueError(f"{name} is no text")
    return array.reshape(shape, order="F" if fortran else "C")


def _fill(file: BinaryIO, view: memoryview, name: str) -> None:
    """Reads a member to its end, which the view must reach, and no further."""
    while view:
        count = file.readinto(view)
        if not count:
            raise ValueError(f"{name} lacks its last {len(view):,} bytes")
        view = view[count:]
    if file.read(1):
        raise ValueError(f"{name} goes on past its end")


def _header(file: BinaryIO):
    """(shape, whether its first axis runs fastest, dtype) of an array."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its format {version} is unknown")
    try:
        found = _HEADERS[version](file)
    # The parser of literals raises anything from SyntaxError to MemoryError.
    except Exception as error:
        raise ValueError("the header of an array is damaged") from error
    if found[2].hasobject:
        raise ValueError("it holds objects, which only a pickle could bring back")
    return found


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
