"""Parts of a compressed page: where to read so that as little as can be is decompressed.

Snappy writes blocks of 64 kB, none of which refers to the one before; the format does not promise
it, so a walk over the tags of a page finds where nothing later refers to anything earlier. It
passes over what a tag carries: of images, which hardly compress, it reads a tag in 64 kB.
"""

from __future__ import annotations

import bisect
import os
from typing import NamedTuple, Protocol

from mq_jax.containers.extents import CODECS, decompressed
from mq_jax.containers.thrift import read_unsigned

_SNAPPY = CODECS.index("snappy")
# Between places at which reading may begin, decompressed bytes.
_STRIDE = 2**15
_LEAST_WINDOW, _MOST_WINDOW = 2**7, 2**16


class Place(NamedTuple):
    """Where some bytes lie: the first six numbers of an Extent."""

    offset: int
    size: int
    codec: int
    whole: int
    skip: int
    length: int


class Page(NamedTuple):
    """The bytes of a page in a file.

    Attributes:
      descriptor: of the open file.
      offset: where they begin.
      size: how many there are.
      codec: a number of CODECS.
      whole: how many they are when decompressed.
    """

    descriptor: int
    offset: int
    size: int
    codec: int
    whole: int


class Stream(Protocol):
    """The decompressed bytes of a page."""

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`."""
        ...

    def place(self, start: int, stop: int) -> Place:
        """Where the bytes from `start` to `stop` lie in the file."""
        ...


def open_stream(page: Page) -> Stream:
    """Opens a page.

    Args:
      page: of any codec.

    Returns:
      The Stream.

    Raises:
      ValueError: it is damaged.
    """
    if not page.codec:
        return _Stored(page)
    return _Snappy(page) if page.codec == _SNAPPY else _Whole(page)


class _Stored:
    """Of bytes that are not compressed."""

    def __init__(self, page: Page):
        self._page = page

    def read(self, start, stop):
        return _read(self._page.descriptor, self._page.offset + start, stop - start)

    def place(self, start, stop):
        length = stop - start
        return Place(self._page.offset + start, length, 0, length, 0, length)


class _Whole:
    """Of a codec that can be decompressed from its beginning alone."""

    def __init__(self, page: Page):
        self._page = page
        data = _read(page.descriptor, page.offset, page.size)
        self._data = decompressed(data, page.codec, page.whole)

    def read(self, start, stop):
        return self._data[start:stop]

    def place(self, start, stop):
        return Place(*self._page[1:], start, stop - start)


class _Snappy:
    """Of a snappy stream, in segments that stand for themselves."""

    def __init__(self, page: Page):
        self._page = page
        self._plain, self._packed, self._literals = _segments(page)
        self._last = (0, 0, b"")

    def read(self, start, stop):
        number = bisect.bisect_right(self._plain, start) - 1
        inside = start - self._plain[number]
        at, length = self._literals[number] if number < len(self._literals) else (0, 0)
        # The length of a value most often is, and nothing need be decompressed.
        if inside + stop - start <= length:
            return _read(self._page.descriptor, self._page.offset + at + inside, stop - start)
        first, last, data = self._last
        if not first <= start <= stop <= last:
            (begin, end), (first, last) = self._around(start, stop)
            packed = _read(self._page.descriptor, self._page.offset + begin, end - begin)
            data = decompressed(packed, _SNAPPY, last - first)
            self._last = (first, last, data)
        return data[start - first : stop - first]

    def place(self, start, stop):
        (begin, end), (first, last) = self._around(start, stop)
        return Place(
            self._page.offset + begin,
            end - begin,
            _SNAPPY,
            last - first,
            start - first,
            stop - start,
        )

    def _around(self, start, stop):
        """The compressed and the decompressed bounds of the segments that hold some bytes."""
        first = bisect.bisect_right(self._plain, start, 0, len(self._plain) - 1) - 1
        last = bisect.bisect_left(self._plain, stop, first + 1, len(self._plain) - 1)
        return tuple((bounds[first], bounds[last]) for bounds in (self._packed, self._plain))


def _segments(page: Page) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Where segments begin, decompressed and compressed, and where the last one ends.

    Then of each the place and the length of the bytes that it begins with, written as they are.
    """
    window = _Window(page)
    whole, at = read_unsigned(window.bytes(0), 0)
    if whole != page.whole:
        raise ValueError(f"a page of {page.whole} bytes says that it has {whole}")
    reached, plain, packed, literals = 0, [0], [at], [(at, 0)]
    while at < page.size:
        data = window.bytes(at)
        tag = data[0]
        if tag & 3:
            back, length = _reference(data)
            # What is referred to binds all that begins after it.
            while plain[-1] > reached - back:
                if not plain[-1]:
                    raise ValueError("a reference before the beginning of a page")
                del plain[-1], packed[-1], literals[-1]
            reached, at = reached + length, at + (2, 3, 5)[(tag & 3) - 1]
            continue
        extra = max(0, (tag >> 2) - 59)
        length = 1 + (int.from_bytes(data[1 : 1 + extra], "little") if extra else tag >> 2)
        if reached - plain[-1] >= _STRIDE:
            plain.append(reached)
            packed.append(at)
            literals.append((at + 1 + extra, length))
        reached, at = reached + length, at + 1 + extra + length
    if (reached, at) != (whole, page.size):
        raise ValueError("a page is not whole")
    return [*plain, reached], [*packed, at], literals


def _reference(data: bytes) -> tuple[int, int]:
    """How far back a tag refers, and to how many bytes."""
    tag = data[0]
    if tag & 3 == 1:
        return tag >> 5 << 8 | data[1], 4 + (tag >> 2 & 7)
    return int.from_bytes(data[1 : 3 if tag & 3 == 2 else 5], "little"), 1 + (tag >> 2)


class _Window:
    """Bytes of a page around the place where a walk is; small after a leap, else growing."""

    def __init__(self, page: Page):
        self._page = page
        self._start, self._data, self._size = 0, b"", _LEAST_WINDOW

    def bytes(self, at: int) -> bytes:
        """Ten bytes from a place on, fewer at the end of the page."""
        inside = at - self._start
        if inside + 10 > len(self._data):
            leap = inside > len(self._data)
            self._size = _LEAST_WINDOW if leap else min(2 * self._size, _MOST_WINDOW)
            size = min(self._size, self._page.size - at)
            self._data = _read(self._page.descriptor, self._page.offset + at, size)
            self._start, inside = at, 0
        return self._data[inside : inside + 10]


def _read(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    if len(data) < size:
        raise ValueError(f"the file ends at byte {offset + len(data)}, inside of a page")
    return data
