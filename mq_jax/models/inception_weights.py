"""Inception's published weights, out of the file that FID's literature downloads.

The file is what PyTorch's `save` writes: a pickle, which can run code of its own, and the tensors'
bytes. A hash is checked first, and the pickle may name nothing but dicts and tensors.
"""

import collections
import hashlib
import io
import math
import pathlib
import pickle
import urllib.request
import zipfile

import numpy as np
import tqdm

from mq_jax.devices.cache import cache_directory
from mq_jax.devices.places import local_path
from mq_jax.models.inception import DIM, weight_shapes
from mq_jax.models.published import content
from mq_jax.storage.files import replacing
from mq_jax.storage.restricted import RestrictedUnpickler

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

# Of BatchNorm in that network.
EPSILON = 1e-3

# The classes of that network, 8 more than ImageNet's, and the tensor of their logits.
CLASSES = 1008
_LOGITS = "fc.weight"

# What a file of the format before the zip archives begins with.
_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGES = {
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


def find(directory: str = "") -> pathlib.Path:
    """Where the file is.

    Args:
      directory: that holds it; "": `weights` in this program's cache.

    Returns:
      Its path.

    Raises:
      FileNotFoundError: it is not there; says how to get it.
    """
    path = _path(directory)
    if path is None:
        raise FileNotFoundError(
            f"FID's Inception weights have no place, as there is no home folder: put {URL} into "
            "a folder, and name it by --weights_dir."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"FID's Inception weights {path} do not exist. Fetch them with --download_weights, or "
            f"put {URL} into the folder of --weights_dir."
        )
    return path


def load_weights(directory: str = "", *, sha256: str = SHA256) -> dict:
    """The published weights, read once their hash is found to be right.

    Args:
      directory: as find's.
      sha256: of the file.

    Returns:
      f32 NumPy arrays in the structure of inception.weight_shapes, BatchNorm folded in.

    Raises:
      FileNotFoundError: the file is not there; says how to get it.
      ValueError: the file is not the published one.
      pickle.UnpicklingError: the file holds anything but tensors.
    """
    return fold(_published(directory, sha256))


def load_network(directory: str = "", *, sha256: str = SHA256) -> tuple[dict, np.ndarray]:
    """The published weights together with those of the classes' logits.

    Args:
      directory: as find's.
      sha256: of the file.

    Returns:
      As load_weights, and f32[2048, 1008], without the bias: the Inception score has none.

    Raises:
      FileNotFoundError: as load_weights.
      ValueError: as load_weights.
      pickle.UnpicklingError: as load_weights.
    """
    tensors = _published(directory, sha256)
    kernel = tensors.get(_LOGITS)
    if kernel is None or kernel.shape != (CLASSES, DIM):
        found = "lack" if kernel is None else f"have {kernel.shape} for"
        raise ValueError(
            f"the Inception weights {found} {_LOGITS}; expected {(CLASSES, DIM)}, of {FILE}."
        )
    return fold(tensors), np.ascontiguousarray(kernel.T)


def download(directory: str = "", *, url: str = URL, sha256: str = SHA256) -> pathlib.Path:
    """Fetches the file, unless it is there.

    Args:
      directory: as find's; created.
      url: of the file.
      sha256: of the file.

    Returns:
      Its path.

    Raises:
      OSError: it cannot be fetched or written; nothing is left behind.
      ValueError: what came is not the published file, and nothing is left behind; or there is no
        folder for it.
    """
    path = _path(directory)
    if path is None:
        raise ValueError("--download_weights has no home folder to write to; give --weights_dir.")
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as temporary:
            _fetch(url, temporary)
            _check_hash(content(temporary), sha256, url)
    except OSError as error:
        raise OSError(
            f"Fetching {url} failed ({error}). Put the file into {path.parent} by other means, or "
            "leave fid out."
        ) from error
    return path


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a state dict, from either format of PyTorch's `save`.

    Args:
      data: the whole file.

    Returns:
      Arrays by name.

    Raises:
      ValueError: the file is truncated, or of another format.
      pickle.UnpicklingError: the pickle names anything but dicts and tensors.
    """
    try:
        described, storages = _from_zip(data) if data[:2] == b"PK" else _from_stream(data)
        return {name: tensor.array(storages) for name, tensor in described.items()}
    except (EOFError, KeyError, IndexError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"no whole file of PyTorch tensors ({error!r}).") from error


def fold(tensors: dict[str, np.ndarray]) -> dict:
    """Convolutions with their BatchNorm's running statistics folded in, in float64.

    kernel' = kernel * scale / sqrt(variance + eps), bias' = bias - mean * scale / sqrt(...).

    Args:
      tensors: by PyTorch's names, "Mixed_5b.branch1x1.conv.weight" f32[C', C, kh, kw] and
        "Mixed_5b.branch1x1.bn.weight", ".bias", ".running_mean", ".running_var" f32[C'].

    Returns:
      f32 arrays in the structure of inception.weight_shapes.

    Raises:
      ValueError: a tensor is missing, or of another shape.
    """
    weights = {}
    for key, shapes in weight_shapes().items():
        names = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        missing = [f"{key}.{name}" for name in names if f"{key}.{name}" not in tensors]
        if missing:
            raise ValueError(f"the Inception weights lack {missing[0]}; expected {FILE}.")
        kernel, scale, bias, mean, variance = (
            tensors[f"{key}.{name}"].astype(np.float64) for name in names
        )
        if kernel.ndim != 4 or kernel.transpose(2, 3, 1, 0).shape != shapes["kernel"].shape:
            raise ValueError(
                f"{key}.conv.weight is {kernel.shape}; expected {shapes['kernel'].shape} in "
                f"PyTorch's order, of {FILE}."
            )
        factor = scale / np.sqrt(variance + EPSILON)
        weights[key] = {
            "kernel": (kernel.transpose(2, 3, 1, 0) * factor).astype(np.float32),
            "bias": (bias - mean * factor).astype(np.float32),
        }
    return weights


class _Tensor(collections.namedtuple("_Tensor", "storage dtype offset shape strides")):
    """A tensor as its pickle describes it."""

    def array(self, storages):
        """Its values, from the storages' bytes."""
        values = np.frombuffer(storages[self.storage], self.dtype)
        span = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        # Of negative strides it would reach before the start; of strides 0, fill the memory.
        sound = min((*self.shape, 1)) > 0 and min((*self.strides, self.offset)) >= 0
        if not sound or max(self.offset + span, math.prod(self.shape)) > len(values):
            raise ValueError(f"a tensor of {self.shape} reaches past its {len(values)} numbers.")
        steps = [self.dtype.itemsize * stride for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps)
        return view.copy()


def _rebuild(storage, offset, shape, strides, *_):
    """Stands for torch._utils._rebuild_tensor_v2."""
    key, dtype = storage
    return _Tensor(key, dtype, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _TensorUnpickler(RestrictedUnpickler):
    """Builds dicts and descriptions of tensors."""

    allowed = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        **_STORAGES,
    }
    refusal = f"A file of weights names {{}}, expected tensors alone. Replace it by {URL}."

    def persistent_load(self, pid):
        """(key, dtype) of a storage."""
        _, dtype, key, *_ = pid
        return str(key), dtype


def _from_zip(data):
    """A zip archive: one pickle, and a member for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl")] or [""]
        described = _TensorUnpickler(io.BytesIO(archive.read(index))).load()
        folder = index.removesuffix("data.pkl") + "data/"
        members = [name for name in archive.namelist() if name.startswith(folder)]
        return described, {name.removeprefix(folder): archive.read(name) for name in members}


def _from_stream(data):
    """The older format: pickles one after another, then each storage's length and bytes."""
    stream = io.BytesIO(data)
    try:
        magic, _, _, described, keys = (_TensorUnpickler(stream).load() for _ in range(5))
    except pickle.UnpicklingError as error:
        # A pickle that names what it must not says so; one that is none has no magic number.
        if "names" in str(error):
            raise
        raise ValueError(f"no file of PyTorch tensors ({error}).") from error
    if magic != _MAGIC:
        raise ValueError("no file of PyTorch tensors.")
    sizes = {tensor.storage: tensor.dtype.itemsize for tensor in described.values()}
    storages = {}
    for key in map(str, keys):
        numbers = int.from_bytes(stream.read(8), "little")
        storages[key] = stream.read(numbers * sizes[key])
    return described, storages


def _fetch(url, target):
    """Writes what lies at an address into a file, with a bar of its bytes."""
    with urllib.request.urlopen(url, timeout=60) as response, open(target, "wb") as file:
        size = int(response.headers.get("Content-Length") or 0) or None
        with tqdm.tqdm(total=size, unit="B", unit_scale=True, desc=target.name) as bar:
            while block := response.read(2**18):
                file.write(block)
                bar.update(len(block))


def _published(directory, sha256):
    """The tensors of the file, once its hash is found to be right."""
    path = find(directory)
    data = content(path)
    _check_hash(data, sha256, path)
    return read_tensors(data)


def _check_hash(data, sha256, origin):
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{origin} has {len(data)} bytes and the sha256 {found}; expected the published "
            f"Inception weights, {sha256}. Remove it and fetch it again."
        )


def _path(directory):
    """Where the file should be; None where there is no folder for it."""
    if directory:
        return local_path(directory, "--weights_dir") / FILE
    cache = cache_directory()
    return None if cache is None else cache / "weights" / FILE
