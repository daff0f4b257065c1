"""State dicts as `torch.save` writes them, a zip of a pickle and raw arrays, without PyTorch."""

import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class _Global(NamedTuple):
    """A class or a function, by its name."""

    module: str
    name: str


class _Call(NamedTuple):
    """What a function returns for arguments."""

    function: _Global
    arguments: tuple


class _Stored(NamedTuple):
    """What the reader finds elsewhere by what it is told."""

    told: tuple


_REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")
_HOOKS = _Call(_Global("collections", "OrderedDict"), ())
_STORAGE = _Global("torch", "FloatStorage")


def save_state_dict(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes {"state_dict": arrays}, the form of a checkpoint of PyTorch Lightning.

    `torch.load(path)["state_dict"]` reads it, with weights_only or without.

    Args:
      path: of the file.
      arrays: f32[...] by name.

    Raises:
      OSError: it cannot be written.
    """
    tensors = {name: _tensor(str(i), array.shape) for i, (name, array) in enumerate(arrays.items())}
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        _write(archive, "data.pkl", pickled({"state_dict": tensors}))
        _write(archive, "byteorder", b"little")
        for i, array in enumerate(arrays.values()):
            _write(archive, f"data/{i}", np.ascontiguousarray(array, "<f4").tobytes())
        _write(archive, "version", b"3\n")


def _write(archive, name, data):
    """A member at a time of its own, so that equal weights make equal files."""
    member = zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))
    with archive.open(member, "w", force_zip64=len(data) >= 2**31) as file:
        file.write(data)


def _tensor(key, shape):
    """A tensor that is the whole of a storage, row by row."""
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    stored = _Stored(("storage", _STORAGE, key, "cpu", int(np.prod(shape))))
    return _Call(_REBUILD, (stored, 0, shape, strides, False, _HOOKS))


def pickled(value: Any) -> bytes:
    """The pickle, of protocol 2, of a value.

    Args:
      value: of dicts, tuples, texts, whole numbers and booleans, and of the kinds above, which
        Python's own pickle could only write where PyTorch can be imported.

    Returns:
      The bytes.
    """
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value):
    """What puts a value on the stack of an unpickler."""
    match value:
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            # LONG1; the four bytes of BININT would not hold the number of a large table.
            return b"\x8a\x08" + struct.pack("<q", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case dict():
            pairs = b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items())
            return b"}(" + pairs + b"u"
        case _Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case _Call():
            return _opcodes(value.function) + _opcodes(value.arguments) + b"R"
        case _Stored():
            return _opcodes(value.told) + b"Q"
        case tuple():
            return b"(" + b"".join(map(_opcodes, value)) + b"t"
    raise TypeError(f"{type(value).__name__} has no opcodes here.")
