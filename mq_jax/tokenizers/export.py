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
            "preparation_sha256": digest(self.preparation),
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
    theta, phi, batch_stats = state.evaluated
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
    weights = jax.tree.map(np.asarray, Weights(theta, batch_stats, codebook))
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


def digest(value: Any) -> str:
    """The sha256 of what is fit for JSON, in 64 hexadecimal digits."""
    return hashlib.sha256(_text(value)).hexdigest()


def named(weights: Weights) -> dict[str, np.ndarray]:
    """Arrays by name: `theta/encoder/Conv_0/kernel`, `batch_stats/...`, `codebook`."""
    return traverse_util.flatten_dict(weights._asdict(), sep="/")


def downsampling(export: Export) -> int:
    """Pixels to a code of an export, along one side."""
    return make_autoencoder(ConfigDict(export.architecture)).downsampling


def coding_of(export: Export) -> Coding:
    """Both directions of an export, as pure functions of its weights."""
    config = ConfigDict(export.architecture)
    lookup = functools.partial(nearest_codeword, chunk=config.codebook.lookup_chunk)
    return make_coding(make_autoencoder(config), lookup)
