"""Where images lie inside of larger files: extents of bytes, and reading one.

An extent is read by its place alone, so that nothing stays open between two images, and threads
and processes share nothing.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mq_jax.devices.reading import open_regular

# As pyarrow calls them; what is stored as it is has the first.
CODECS = ("", "snappy", "gzip", "brotli", "zstd", "lz4_raw")
_SNAPPY = CODECS.index("snappy")

# Of names and labels, bytes: they are for people and for hashes.
LONGEST_TEXT = 200


class Extent(NamedTuple):
    """The bytes of one image inside of a file.

    Attributes:
      offset: where to read, bytes.
      size: how much; -1 where there is no image.
      codec: a number of CODECS.
      whole: bytes when decompressed.
      skip: of these before the image.
      length: of the image, bytes.
      name: for people, as the file tells it; may be empty.
      label: a number or the name of a class, as the file tells it; may be empty.
    """

    offset: int
    size: int
    codec: int
    whole: int
    skip: int
    length: int
    name: str = ""
    label: str = ""


class Extents(NamedTuple):
    """Those of many images, a row each.

    Attributes:
      places: i64[N, 6], the numbers of an Extent in their order.
      names: bytes[N], UTF-8.
      labels: bytes[N], likewise.
    """

    places: np.ndarray
    names: np.ndarray
    labels: np.ndarray


def stacked(extents: Iterable[Extent]) -> Extents:
    """The rows of some extents.

    Args:
      extents: in order.

    Returns:
      The Extents.
    """
    rows = list(extents)
    texts = [
        np.array([_clipped(text) for text in column], bytes)
        for column in ([row.name for row in rows], [row.label for row in rows])
    ]
    return Extents(np.array([row[:6] for row in rows], np.int64).reshape(-1, 6), *texts)


def joined(parts: Sequence[Extents]) -> Extents:
    """The rows of several files in one.

    Args:
      parts: of each file, at least one.

    Returns:
      The Extents.
    """
    return Extents(*map(np.concatenate, zip(*parts, strict=True)))


def read_extent(path: pathlib.Path, place: Sequence[int], most: int) -> bytes:
    """Reads the bytes of one image.

    Args:
      path: of the file.
      place: the numbers of an Extent.
      most: bytes that it may have; 0: any.

    Returns:
      The bytes of the image.

    Raises:
      ValueError: there is no image, it is too large, or the file is damaged or was changed.
    """
    offset, size, codec, whole, skip, length = map(int, place)
    if size < 0:
        raise ValueError("the record has no image.")
    if 0 < most < length:
        raise ValueError(
            f"the image has {length} bytes; max_bytes is {most}, raise it to read such images."
        )
    try:
        with open_regular(path) as file:
            data = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise ValueError(f"cannot read the file ({error}).") from error
    if len(data) < size:
        raise ValueError(f"the file ends after {len(data)} of the {size} bytes of the image.")
    return data if not codec else decompressed(data, codec, whole)[skip : skip + length]


def decompressed(data: bytes, codec: int, whole: int) -> bytes:
    """What compressed bytes hold.

    Args:
      data: compressed; of snappy without the length that begins a stream.
      codec: a number of CODECS, not the first.
      whole: how many bytes they hold.

    Returns:
      These.

    Raises:
      ValueError: they are damaged.
    """
    # Imported here: only these files need it.
    import pyarrow

    if codec == _SNAPPY:
        data = _snappy_length(whole) + data
    try:
        return pyarrow.decompress(data, whole, codec=CODECS[codec], asbytes=True)
    except (OSError, pyarrow.ArrowException) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"damaged {CODECS[codec]} data ({told}).") from error


def _snappy_length(whole: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    told = bytearray()
    while whole > 127:
        told.append(whole & 127 | 128)
        whole >>= 7
    return bytes([*told, whole])


def _clipped(text: str) -> bytes:
    # What ends in a zero would lose it.
    return text.encode("utf-8", "surrogatepass")[:LONGEST_TEXT].rstrip(b"\0")
