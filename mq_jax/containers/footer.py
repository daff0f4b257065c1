"""Where the columns of a Parquet file lie, out of its footer.

pyarrow knows it, too, but ends the process that asks it where some of the numbers are damaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from mq_jax.containers.extents import CODECS
from mq_jax.containers.pages import Chunk
from mq_jax.containers.thrift import read_struct

_MAGIC = b"PAR1"
# It lists each column of each row group.
_MOST_BYTES = 2**30
# What Parquet has numbers for.
_CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


def column_chunks(descriptor: int, leaf: str, levels: int) -> Iterator[Chunk]:
    """The parts of a column, one in each row group.

    Args:
      descriptor: of the open file.
      leaf: the name of the column after those of what it lies in, divided by dots.
      levels: its largest definition level.

    Yields:
      The chunks in order.

    Raises:
      ValueError: the footer is damaged, or the column is compressed in another way.
      LookupError: likewise.
      TypeError: likewise.
    """
    for group in _footer(descriptor).get(4, []):
        told = {_name(chunk[3]): chunk[3] for chunk in group[1]}[leaf]
        if told[4] not in _CODECS:
            raise ValueError(f"column {leaf} is compressed by codec {told[4]}")
        # The dictionary, where there is one, comes first.
        offset = min(told[9], told.get(11) or told[9])
        if offset < 0 or told[7] < 0 or offset + told[7] > os.fstat(descriptor).st_size:
            raise ValueError(f"column {leaf} reaches past the file")
        codec = CODECS.index(_CODECS[told[4]])
        yield Chunk(descriptor, offset, told[7], codec, group[3], levels)


def _footer(descriptor: int) -> dict[int, Any]:
    size = os.fstat(descriptor).st_size
    end = os.pread(descriptor, 8, max(0, size - 8))
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or length + 8 > min(size, _MOST_BYTES):
        raise ValueError("no footer ends it")
    return read_struct(os.pread(descriptor, length, size - 8 - length))[0]


def _name(column: dict[int, Any]) -> str:
    return ".".join(part.decode(errors="replace") for part in column[3])
