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
    with _told_in_one_line(), _opened(source, most) as file, zipfile.ZipFile(file) as archive:
        if set(archive.namelist()) != {f"{name}.npy" for name in expected}:
            expected = {**expected, **optional}
        members = {name: _member(archive, name) for name in expected}
        total = sum(member.file_size for member in members.values())
        if total > most:
            raise ValueError(f"its arrays have {total:,} bytes; expected at most {most:,}")
        return {name: _stored(archive, members[name], expected[name]) for name in expected}


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
    with _told_in_one_line(), _opened(source, most) as file:
        return _array(file, os.fstat(file.fileno()).st_size, "it", expected)


def array_names(source: str | os.PathLike, *, most: int = MOST_BYTES) -> list[str]:
    """The names of the arrays of an .npz file, none of which is read.

    Args:
      source: the path of the file.
      most: bytes that it may have.

    Returns:
      The names, in the order of the file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no whole archive, or too large.
    """
    with _told_in_one_line(), _opened(source, most) as file, zipfile.ZipFile(file) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def array_shape(
    source: str | os.PathLike, name: str, expected: Stored, *, most: int = MOST_BYTES
) -> tuple[int, ...]:
    """The shape of an array of an .npz file, which is not read.

    Args:
      source: the path of the file.
      name: of the array.
      expected: what it must be; its rows must lie one after another.
      most: bytes that the file and the array may have, each.

    Returns:
      The shape that it declares, of as many bytes as it has.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: as read_arrays.
    """
    with _told_in_one_line(), _member_of(source, name, most) as (file, size):
        return _rows_header(file, size, name, expected)[0]


def read_rows(
    source: str | os.PathLike,
    name: str,
    expected: Stored,
    rows: int,
    *,
    most: int = MOST_BYTES,
) -> Iterator[np.ndarray]:
    """Reads an array of an .npz file by its first axis, a part at a time; nothing is unpickled.

    Args:
      source: the path of the file.
      name: of the array.
      expected: as array_shape's.
      rows: of a part.
      most: as array_shape's.

    Yields:
      Arrays of so many rows, the last of fewer, writable.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: as read_arrays; what damages a later part is told once that is reached.
    """
    with _told_in_one_line(), _member_of(source, name, most) as (file, size):
        (count, *rest), dtype = _rows_header(file, size, name, expected)
        for start in range(0, count, rows):
            part = min(rows, count - start)
            data = bytearray(part * math.prod(rest) * dtype.itemsize)
            _fill(file, memoryview(data), name, last=start + part == count)
            yield np.frombuffer(data, dtype).reshape(part, *rest)


@contextlib.contextmanager
def _told_in_one_line() -> Iterator[None]:
    """Whatever an archive raises, as a ValueError of one line."""
    try:
        yield
    except (FileNotFoundError, GeneratorExit):
        raise
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is no whole .npz file: {error}") from error
    # Archive, compression and header each raise their own, from KeyError to zlib.error.
    except Exception as error:
        raise ValueError(_in_one_line(error)) from error


@contextlib.contextmanager
def _member_of(source, name, most) -> Iterator[tuple[BinaryIO, int]]:
    """An open member and its bytes."""
    with _opened(source, most) as file, zipfile.ZipFile(file) as archive:
        member = _member(archive, name)
        if member.file_size > most:
            raise ValueError(f"{name} has {member.file_size:,} bytes; expected at most {most:,}")
        with archive.open(member) as opened:
            yield opened, member.file_size


def _rows_header(file, file_size, name, expected):
    """(shape, dtype) of an array that is to be read by its rows."""
    shape, fortran, dtype = _checked_header(file, file_size, name, expected)
    if not shape or fortran and len(shape) > 1:
        raise ValueError(f"{name} has no rows that lie one after another; save it in C order")
    return shape, dtype


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
    shape, fortran, dtype = _checked_header(file, file_size, name, expected)
    data = bytearray(math.prod(shape) * dtype.itemsize)
    _fill(file, memoryview(data), name)
    array = np.frombuffer(data, dtype) if data else np.zeros(0, dtype)
    if dtype.kind == "U" and data and array.view(f"{dtype.byteorder}u4").max() > sys.maxunicode:
        raise ValueError(f"{name} is no text")
    return array.reshape(shape, order="F" if fortran else "C")


def _checked_header(file: BinaryIO, file_size: int, name: str, expected: Stored):
    """(shape, whether its first axis runs fastest, dtype) of what is expected."""
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
    return shape, fortran, dtype


def _fill(file: BinaryIO, view: memoryview, name: str, *, last: bool = True) -> None:
    """Reads the next bytes of a member; the last ones to its end, and no further."""
    while view:
        count = file.readinto(view)
        if not count:
            raise ValueError(f"{name} lacks its last {len(view):,} bytes")
        view = view[count:]
    if last and file.read(1):
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
