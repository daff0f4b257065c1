"""What PyTorch's `save` writes: a pickle, and the bytes of the storages that it refers to.

There are two formats, a zip archive and, of before it, pickles and storages one after another.
"""

import collections
import contextlib
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from mq_jax.storage.restricted import RestrictedUnpickler
from mq_jax.tensorfiles.arrays import Arrays
from mq_jax.tensorfiles.pickles import require_modest, stand_in

# What a file of the format before the zip archives begins with.
_MAGIC = 0x1950A86A20F9469CFC6C

# Of a pickle, without the storages: the largest checkpoints have a megabyte or two.
_MOST_PICKLE = 2**26

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class Tensor(NamedTuple):
    """A tensor as its pickle describes it.

    Attributes:
      storage: key of its bytes.
      dtype: of its numbers.
      offset: of the first one in the storage, in numbers.
      shape: of the tensor.
      strides: in numbers.
    """

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, data: bytes) -> np.ndarray:
        """Its values, from the storage's bytes."""
        values = np.frombuffer(data, self.dtype)
        span = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        # Of negative strides it would reach before the start; of strides 0, fill the memory.
        sound = min((*self.shape, 1)) > 0 and min((*self.strides, self.offset)) >= 0
        if not sound or max(self.offset + span, math.prod(self.shape)) > len(values):
            raise ValueError(f"a tensor of {self.shape} reaches past its {len(values)} numbers.")
        steps = [self.dtype.itemsize * stride for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps)
        return view.copy()


@contextlib.contextmanager
def open_torch(
    file: BinaryIO, choose: Callable[[Any], Mapping[str, Any]], *, refusal: str = ""
) -> Iterator[Arrays]:
    """The tensors of a file.

    Args:
      file: open, of any origin.
      choose: of what the pickle holds, whose tensors are of class Tensor, those that are wanted,
        by name; what is no Tensor among them is passed over.
      refusal: the message for a pickle that names anything but dicts and tensors, with a place for
        the name; "": it may, and what it names stands for nothing.

    Yields:
      Arrays.

    Raises:
      ValueError: the file is truncated, damaged or of another format.
      pickle.UnpicklingError: the pickle names what it must not.
    """
    with contextlib.ExitStack() as opened:
        with _told_in_one_line():
            file.seek(0)
            reader = _of_zip if file.read(2) == b"PK" else _of_stream
            held, storage = opened.enter_context(reader(file, refusal))
            chosen = {name: own for name, own in choose(held).items() if isinstance(own, Tensor)}

        def read(names):
            with _told_in_one_line():
                return {name: chosen[name].array(storage(chosen[name])) for name in names}

        yield Arrays({name: tensor.shape for name, tensor in chosen.items()}, read)


def read_state_dict(data: bytes, refusal: str) -> dict[str, np.ndarray]:
    """The tensors of a file that holds a dict of them and nothing else.

    Args:
      data: the whole file.
      refusal: as open_torch's.

    Returns:
      Arrays by name.

    Raises:
      ValueError: the file is truncated, or of another format.
      pickle.UnpicklingError: the pickle names anything but dicts and tensors.
    """
    with open_torch(io.BytesIO(data), lambda held: held, refusal=refusal) as arrays:
        return arrays.read(list(arrays.shapes))


def _rebuild(storage, offset, shape, strides, *_):
    """Stands for torch._utils._rebuild_tensor_v2."""
    key, dtype = storage
    return Tensor(key, dtype, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _TensorUnpickler(RestrictedUnpickler):
    """Builds dicts and descriptions of tensors; `storages` are the dtypes of all, by key."""

    allowed = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    }

    def __init__(self, stream: BinaryIO, refusal: str):
        require_modest(stream)
        super().__init__(stream)
        self.refusal, self.storages = refusal, {}

    def find_class(self, module, name):
        """What stands for a global."""
        if self.refusal or (module, name) in self.allowed:
            return super().find_class(module, name)
        return stand_in(module, name)

    def persistent_load(self, pid):
        """(key, dtype) of a storage."""
        _, dtype, key, *_ = pid
        if not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"the numbers of its storage {key} are of no known kind")
        self.storages[str(key)] = dtype
        return str(key), dtype


@contextlib.contextmanager
def _of_zip(file, refusal):
    """A zip archive: one pickle, and a member for each storage."""
    with zipfile.ZipFile(file) as archive:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl")] or [""]
        folder = index.removesuffix("data.pkl")
        pickled = io.BytesIO(_member(archive, index, _MOST_PICKLE))
        order = f"{folder}byteorder"
        if order in archive.namelist() and _member(archive, order, 8) != b"little":
            raise ValueError("its numbers are not of little-endian byte order")

        def storage(tensor):
            return _member(archive, f"{folder}data/{tensor.storage}")

        yield _TensorUnpickler(pickled, refusal).load(), storage


@contextlib.contextmanager
def _of_stream(file, refusal):
    """The older format: pickles one after another, then each storage's length and bytes."""
    file.seek(0)
    try:
        magic, _, _ = (_TensorUnpickler(file, refusal).load() for _ in range(3))
        described = _TensorUnpickler(file, refusal)
        held = described.load()
        keys = _TensorUnpickler(file, refusal).load()
    except pickle.UnpicklingError as error:
        # A pickle that names what it must not says so; one that is none has no magic number.
        if "names" in str(error):
            raise
        raise ValueError(f"no file of PyTorch tensors ({error}).") from error
    if magic != _MAGIC:
        raise ValueError("no file of PyTorch tensors.")
    dtypes, places = described.storages, {}
    for key in map(str, keys):
        size = int.from_bytes(file.read(8), "little") * dtypes[key].itemsize
        places[key] = file.tell(), size
        file.seek(size, 1)

    def storage(tensor):
        place, size = places[tensor.storage]
        file.seek(place)
        return file.read(size)

    yield held, storage


def _member(archive, name, most=None):
    """The bytes of a member, as PyTorch writes them: as many in the file as in memory."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or (most and member.file_size > most):
        raise ValueError(f"its {name} is compressed, or has {member.file_size:,} bytes")
    return archive.read(member)


@contextlib.contextmanager
def _told_in_one_line():
    """What the formats raise for damage, as a ValueError."""
    try:
        yield
    except (EOFError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"no whole file of PyTorch tensors ({error!r}).") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"no whole file of PyTorch tensors ({error!r}).") from error
