"""What Flax's `to_bytes` writes: msgpack, in which arrays are a type of Flax's own."""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import msgpack
import numpy as np

from mq_jax.tensorfiles.arrays import Arrays

# The largest published one has a quarter of a gigabyte; msgpack itself ends at four.
_MOST_BYTES = 2**31

# Of all dicts and lists together; each may take a hundred times the bytes that it has in the file.
_MOST_ENTRIES = 2**16
_DEEPEST = 32

# First bytes of a dict that is not empty. A pickle begins with 0x80 or with a letter.
_DICTS = (*range(0x81, 0x90), 0xDE, 0xDF)

# Types beside those of msgpack: arrays, and scalars, which are written as arrays are.
_ARRAYS = (1, 3)
_DTYPES = {
    name: np.dtype(name)
    for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool")
    + ("uint8", "uint16", "uint32", "uint64")
} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


class _Array(NamedTuple):
    """An array as it lies in the file: dtype, shape, and its bytes row by row."""

    dtype: np.dtype
    shape: tuple[int, ...]
    data: bytes


def begins_as_msgpack(file: BinaryIO) -> bool:
    """Whether a file begins with a dict of msgpack; it is left at its start."""
    first = file.read(1)
    file.seek(0)
    return bool(first) and first[0] in _DICTS


@contextlib.contextmanager
def open_msgpack(file: BinaryIO) -> Iterator[Arrays]:
    """The arrays of a file; what else it holds is passed over.

    Args:
      file: open, of any origin.

    Yields:
      Arrays, whose names join the keys of nested dicts by dots.

    Raises:
      ValueError: the file is truncated, damaged or too large.
    """
    try:
        chosen = dict(_flat(_unpacked(_content(file))))
    # Of this library nearly all are ValueErrors.
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"no whole file of Flax's arrays ({error})") from error

    def read(names):
        return {name: _array(chosen[name]) for name in names}

    yield Arrays({name: own.shape for name, own in chosen.items()}, read)


def _content(file: BinaryIO) -> bytes:
    """All bytes of a file."""
    size = file.seek(0, os.SEEK_END)
    if size > _MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes; expected at most {_MOST_BYTES:,}")
    file.seek(0)
    # Python makes room for as much as it is asked for.
    return file.read(size)


def _unpacked(data: bytes) -> Any:
    """The tree of a file, within limits."""
    entries = 0

    def counted(found):
        nonlocal entries
        entries += len(found)
        if entries > _MOST_ENTRIES:
            raise ValueError(f"it has more than {_MOST_ENTRIES:,} entries")
        return found

    def as_dict(pairs):
        found = dict(counted(pairs))
        if len(found) < len(pairs):
            raise ValueError("a name occurs twice")
        return found

    return msgpack.unpackb(
        data,
        object_pairs_hook=as_dict,
        list_hook=counted,
        ext_hook=_extension,
        max_map_len=_MOST_ENTRIES,
        max_array_len=_MOST_ENTRIES,
    )


def _extension(code: int, data: bytes) -> _Array | None:
    """An array or a scalar; nothing of other types."""
    if code not in _ARRAYS:
        return None
    shape, name, held = msgpack.unpackb(data, max_array_len=len(_DTYPES), max_map_len=0)
    dtype = _DTYPES.get(name) if isinstance(name, str) else None
    sound = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if dtype is None or not sound or not isinstance(held, bytes):
        raise ValueError("an array is of no known kind")
    if math.prod(shape) * dtype.itemsize != len(held):
        raise ValueError(f"an array of {tuple(shape)} has {len(held):,} bytes")
    return _Array(dtype, tuple(shape), held)


def _flat(tree: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, _Array]]:
    """The arrays of nested dicts by their names."""
    if len(place) > _DEEPEST:
        raise ValueError(f"its dicts are nested more than {_DEEPEST} deep")
    if isinstance(tree, _Array):
        yield ".".join(place), tree
    elif isinstance(tree, dict):
        for key, own in tree.items():
            yield from _flat(own, (*place, str(key)))


def _array(own: _Array) -> np.ndarray:
    """The numbers; those of the file, which nobody may write to."""
    return np.frombuffer(own.data, own.dtype).reshape(own.shape)
