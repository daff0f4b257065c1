"""Where the byte arrays of a Parquet column lie: pyarrow reads row groups alone, each as a whole.

A row group of the hub has 100 images or 1,000, often in one page of 10 MB or 100: to read it for
each image of a shuffled order takes 30 ms or seconds. So headers of pages are read here as
github.com/apache/parquet-format lays them out, and of the values their lengths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mq_jax.containers.streams import Page, Place, Stream, open_stream
from mq_jax.containers.thrift import read_struct, read_unsigned

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8
# Most have 20 to 100 bytes; some hold the smallest and the largest value.
_HEADER_BYTES, _MOST_HEADER_BYTES = 2**9, 2**24

ABSENT = Place(0, -1, 0, 0, 0, 0)


class Chunk(NamedTuple):
    """The column of a row group.

    Attributes:
      descriptor: of the open file.
      offset: of its first page, bytes.
      size: of all of them, bytes.
      codec: a number of extents.CODECS.
      rows: how many it has.
      levels: its largest definition level; it repeats nothing.
    """

    descriptor: int
    offset: int
    size: int
    codec: int
    rows: int
    levels: int


def byte_array_places(chunk: Chunk) -> Iterator[Place]:
    """Where the values of a column lie.

    Args:
      chunk: of byte arrays.

    Yields:
      The place of each row's value; ABSENT where it is null.

    Raises:
      ValueError: the pages are damaged, or of an encoding that is not read.
    """
    dictionary: list[Place] = []
    offset, end, rows = chunk.offset, chunk.offset + chunk.size, 0
    while offset < end and rows < chunk.rows:
        header, start = _header(chunk.descriptor, offset, end)
        kind, whole, size = (_number(header, field) for field in (1, 2, 3))
        page = Page(chunk.descriptor, start, size, chunk.codec, whole)
        offset = start + size
        if offset > end:
            raise ValueError(f"the page at byte {start} reaches past its column")
        if kind == _DICTIONARY:
            dictionary = list(_plain(open_stream(page), 0, whole, _number(_inner(header, 7), 1)))
        elif kind in (_DATA, _DATA_V2):
            places = _data if kind == _DATA else _data_v2
            for place in places(page, header, chunk, dictionary):
                rows += 1
                yield place
        elif kind != _INDEX:
            raise ValueError(f"the page at byte {start} is of the unknown kind {kind}")
    if rows != chunk.rows:
        raise ValueError(f"a column has {rows} of its {chunk.rows} rows")


def _data(page: Page, header: dict, chunk: Chunk, dictionary: list) -> Iterator[Place]:
    """The values of a page whose levels are compressed with them."""
    told, stream, at = _inner(header, 5), open_stream(page), 0
    count, levels = _count(told, chunk), b""
    if chunk.levels:
        size = int.from_bytes(stream.read(0, 4), "little")
        levels, at = stream.read(4, 4 + size), 4 + size
    present = _present(levels, chunk.levels, count)
    return _placed(present, _values(stream, at, page.whole, present, told.get(2), dictionary))


def _data_v2(page: Page, header: dict, chunk: Chunk, dictionary: list) -> Iterator[Place]:
    """The values of a page whose levels lie before what is compressed."""
    told = _inner(header, 8)
    before = _number(told, 5) + _number(told, 6)
    if before > min(page.size, page.whole):
        raise ValueError(f"the page at byte {page.offset} is shorter than its levels")
    levels = os.pread(page.descriptor, _number(told, 5), page.offset + _number(told, 6))
    present = _present(levels, chunk.levels, _count(told, chunk))
    whole, size = page.whole - before, page.size - before
    codec = page.codec if told.get(7, True) and size else 0
    stream = open_stream(Page(page.descriptor, page.offset + before, size, codec, whole))
    return _placed(present, _values(stream, 0, whole, present, told.get(4), dictionary))


def _values(
    stream: Stream, at: int, whole: int, present: np.ndarray, encoding: Any, dictionary: list
) -> Iterator[Place]:
    """The places of the values of a page, nulls left out."""
    count = int(present.sum())
    if encoding == _PLAIN:
        return _plain(stream, at, whole, count)
    if encoding not in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
        raise ValueError(
            f"its images are written in encoding {encoding}; expected PLAIN or a dictionary, as "
            "pyarrow writes them by default; write the file anew"
        )
    if not count:
        return iter(())
    data = stream.read(at, whole)
    numbers = _hybrid(data[1:], data[0], count)
    return (dictionary[number] for number in numbers)


def _plain(stream: Stream, at: int, whole: int, count: int) -> Iterator[Place]:
    """The places of byte arrays, each after its length."""
    for _ in range(count):
        length = int.from_bytes(stream.read(at, at + 4), "little")
        start, at = at + 4, at + 4 + length
        if at > whole:
            raise ValueError("a value reaches past its page")
        yield stream.place(start, at)


def _placed(present: np.ndarray, values: Iterator[Place]) -> Iterator[Place]:
    """A place for each row."""
    return (next(values) if there else ABSENT for there in present)


def _present(levels: bytes, largest: int, count: int) -> np.ndarray:
    """bool[count], which rows are not null."""
    if not largest:
        return np.ones(count, bool)
    return _hybrid(levels, largest.bit_length(), count) == largest


def _hybrid(data: bytes, width: int, count: int) -> np.ndarray:
    """i64[count], numbers of `width` bits in runs and packed groups of eight."""
    if width > 32:
        raise ValueError(f"numbers of {width} bits")
    found, at, missing = [], 0, count
    while missing > 0:
        head, at = read_unsigned(data, at)
        if head & 1:
            size = (head >> 1) * width
            packed = np.frombuffer(data[at : at + size], np.uint8)
            bits = np.unpackbits(packed, bitorder="little")[: missing * width]
            run = bits.reshape(-1, width) @ (1 << np.arange(width)) if width else np.zeros(missing)
        else:
            size = -(-width // 8)
            value = int.from_bytes(data[at : at + size], "little")
            run = np.full(min(head >> 1, missing), value)
        if not len(run):
            raise ValueError("numbers that end too early")
        found.append(run)
        at, missing = at + size, missing - len(run)
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def _header(descriptor: int, offset: int, end: int) -> tuple[dict[int, Any], int]:
    """The header of the page at a place, and where what it heads begins."""
    size = _HEADER_BYTES
    while True:
        data = os.pread(descriptor, min(size, end - offset), offset)
        try:
            header, length = read_struct(data)
            return header, offset + length
        except IndexError as error:
            if size >= min(end - offset, _MOST_HEADER_BYTES):
                raise ValueError(f"no page begins at byte {offset}") from error
            size *= 8


def _inner(fields: dict[int, Any], number: int) -> dict[int, Any]:
    value = fields.get(number)
    if not isinstance(value, dict):
        raise ValueError(f"a header of a page lacks its field {number}")
    return value


def _number(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if type(value) is not int or value < 0:
        raise ValueError(f"a header of a page has {value!r} for its field {number}")
    return value


def _count(told: dict[int, Any], chunk: Chunk) -> int:
    """How many rows a page has."""
    count = _number(told, 1)
    if count > chunk.rows:
        raise ValueError(f"a page has {count} of the {chunk.rows} rows of its column")
    return count
