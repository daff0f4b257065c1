"""Inception's published weights, out of the file that FID's literature downloads.

The file is what PyTorch's `save` writes: a pickle, which can run code of its own, and the tensors'
bytes. A hash is checked first, and the pickle may name nothing but dicts and tensors.
"""

import hashlib
import pathlib
import urllib.request

import numpy as np
import tqdm

from mq_jax.devices.cache import cache_directory
from mq_jax.devices.places import local_path
from mq_jax.models.inception import DIM, weight_shapes
from mq_jax.storage.files import replacing
from mq_jax.tensorfiles.pickles import content
from mq_jax.tensorfiles.torch_file import read_state_dict

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

# Of BatchNorm in that network.
EPSILON = 1e-3

# The classes of that network, 8 more than ImageNet's, and the tensor of their logits.
CLASSES = 1008
_LOGITS = "fc.weight"

_REFUSAL = f"A file of weights names {{}}, expected tensors alone. Replace it by {URL}."


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
    return read_state_dict(data, _REFUSAL)


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
