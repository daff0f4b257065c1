"""What an export holds, whatever its format: architecture, preparation of images, weights."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from mq_jax.algorithm.objective import Objective
from mq_jax.algorithm.state import TrainState
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.tokenizers.coding import Coding, Weights, make_coding
from mq_jax.training.build import make_autoencoder

# Counts up when older programs could not read what newer ones write.
VERSION = 1


class Export(NamedTuple):
    """A model on its own.

    Attributes:
      architecture: the sections of a configuration that make_autoencoder and the lookup read.
      preparation: how images were made, arguments of data.transforms.make_eval_transform; and
        "icc": True where colour profiles were followed.
      weights: Weights of NumPy arrays.
      fingerprint: sha256 of architecture and weights.
    """

    architecture: dict[str, Any]
    preparation: dict[str, Any]
    weights: Weights
    fingerprint: str

    @property
    def header(self) -> dict[str, Any]:
        """All but the weights, fit for JSON."""
        return {
            "version": VERSION,
            "architecture": self.architecture,
            "preparation": self.preparation,
            "fingerprint": self.fingerprint,
            "preparation_sha256": _digest(self.preparation),
        }


def make_export(config: ConfigDict, objective: Objective, state: TrainState) -> Export:
    """The model of a state: hyper-net folded into its codewords, averages taken where kept.

    Args:
      config: of the run, validated.
      objective: of the same configuration.
      state: of one process, on any of its devices.

    Returns:
      An Export, on the host.
    """
    theta, phi = state.evaluated
    codebook = jax.jit(objective.codewords)(phi)
    model, data = config.to_dict()["model"], config.data
    # It costs memory to keep what a backward pass recomputes; there is none.
    model["remat"] = False
    architecture = {
        "model": model,
        "codebook": {name: config.codebook[name] for name in ("size", "dim", "lookup_chunk")},
        "data": {"image_size": data.image_size},
    }
    preparation = {name: data[name] for name in ("image_size", "crop", "resize", "filter")}
    # Without, as in exports of before the field.
    preparation |= {"icc": True} if data.icc else {}
    weights = jax.tree.map(np.asarray, Weights(theta, state.batch_stats, codebook))
    # As JSON gives it back: lists for tuples.
    architecture = json.loads(json.dumps(architecture))
    return Export(architecture, preparation, weights, fingerprint(architecture, named(weights)))


def fingerprint(architecture: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The sha256 of an architecture and its arrays.

    Args:
      architecture: fit for JSON.
      arrays: by name, as `named` names them.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256(_text(architecture))
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _text(value):
    """JSON that does not depend on the order of names."""
    return json.dumps(value, sort_keys=True).encode()


def _digest(value):
    """The sha256 of what is fit for JSON."""
    return hashlib.sha256(_text(value)).hexdigest()


def named(weights: Weights) -> dict[str, np.ndarray]:
    """Arrays by name: `theta/encoder/Conv_0/kernel`, `batch_stats/...`, `codebook`."""
    return traverse_util.flatten_dict(weights._asdict(), sep="/")


def from_named(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], origin: Any) -> Export:
    """An Export from what a file holds, checked.

    Args:
      header: as Export.header.
      arrays: as `named` returns them.
      origin: the file, for messages.

    Returns:
      The Export.

    Raises:
      ValueError: the version is unknown, or arrays and header do not fit each other.
    """
    remedy = "export the model again, or copy the whole file again"
    if not isinstance(header, Mapping):
        raise ValueError(
            f"{origin} is damaged or was edited: its header is a {type(header).__name__}; expected "
            f"names and values; {remedy}."
        )
    if "version" not in header or header["version"] != VERSION:
        raise ValueError(
            f"{origin} is of version {header['version'] if 'version' in header else 'unknown'}; "
            f"expected {VERSION}. Read it with the mq_jax that wrote it, or export it again."
        )
    missing = {"architecture", "preparation", "fingerprint", "preparation_sha256"} - set(header)
    if missing:
        raise ValueError(f"{origin} lacks {sorted(missing)}; {remedy}.")
    found = fingerprint(header["architecture"], arrays)
    if found != header["fingerprint"]:
        raise ValueError(
            f"{origin} is damaged or was edited: its content has the fingerprint {found[:16]}..., "
            f"its header says {header['fingerprint'][:16]}...; {remedy}."
        )
    # Not part of the fingerprint: the same model may be fed otherwise.
    if _digest(header["preparation"]) != header["preparation_sha256"]:
        raise ValueError(
            f"{origin} is damaged or was edited: its preparation of images is not the one that was "
            f"exported; {remedy}."
        )
    nested = traverse_util.unflatten_dict(dict(arrays), sep="/")
    weights = Weights(
        nested["theta"],
        nested["batch_stats"] if "batch_stats" in nested else {},
        nested["codebook"],
    )
    return Export(header["architecture"], header["preparation"], weights, header["fingerprint"])


def downsampling(export: Export) -> int:
    """Pixels to a code of an export, along one side."""
    return make_autoencoder(ConfigDict(export.architecture)).downsampling


def coding_of(export: Export) -> Coding:
    """Both directions of an export, as pure functions of its weights."""
    config = ConfigDict(export.architecture)
    lookup = functools.partial(nearest_codeword, chunk=config.codebook.lookup_chunk)
    return make_coding(make_autoencoder(config), lookup)
