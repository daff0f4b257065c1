"""What an export holds, whatever its format: architecture, preparation of images, weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mq_jax.algorithm.objective import Objective
from mq_jax.algorithm.state import TrainState
from mq_jax.runs.trees import by_path
from mq_jax.tokenizers.architecture import architecture_of, config_of, quantizer_of
from mq_jax.tokenizers.coding import Coding, Weights, make_coding
from mq_jax.training.build import make_autoencoder

# Counts up when older programs could not read what newer ones write: those of the first version
# would overlook the section quantizer, which the second one has.
VERSION = 1
QUANTIZER_VERSION = 2


class Export(NamedTuple):
    """A model on its own.

    Attributes:
      architecture: what encodes and decodes, as architecture_of gives it.
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
            "version": version_of(self.architecture),
            "architecture": self.architecture,
            "preparation": self.preparation,
            "fingerprint": self.fingerprint,
            "preparation_sha256": digest(self.preparation),
        }


def make_export(config: ConfigDict, objective: Objective, state: TrainState) -> Export:
    """The model of a state: quantizer folded to what codes, averages taken where kept.

    Args:
      config: of the run, validated.
      objective: of the same configuration.
      state: of one process, on any of its devices.

    Returns:
      An Export, on the host.
    """
    theta, phi, batch_stats, fixed = state.evaluated
    folded, data = jax.jit(objective.quantizer.fold)(phi, fixed), config.data
    architecture = architecture_of(config)
    preparation = {name: data[name] for name in ("image_size", "crop", "resize", "filter")}
    # Without, as in exports of before the field.
    preparation |= {"icc": True} if data.icc else {}
    weights = jax.tree.map(np.asarray, Weights(theta, batch_stats, folded))
    return Export(architecture, preparation, weights, fingerprint(architecture, named(weights)))


def version_of(architecture: Mapping[str, Any]) -> int:
    """The version of a file that holds an architecture."""
    return QUANTIZER_VERSION if "quantizer" in architecture else VERSION


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
    """Arrays by name: `theta/encoder/Conv_0/kernel`, `batch_stats/...`, `codebook`.

    What a quantizer folds to is `codebook` where it is one array; of several `codebook/0` is that
    of the first level or group, `codebook/0/1` that of the second level of the first group.
    """
    return by_path(weights._asdict())


def folded_by_name(arrays: Mapping[str, Any], shapes: Any) -> Any:
    """What a quantizer folded to, out of arrays by name.

    Args:
      arrays: as `named` names them.
      shapes: from folded_shapes.

    Returns:
      A tree like shapes.
    """
    leaves = [arrays[name] for name in by_path({"codebook": shapes})]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def downsampling(export: Export) -> int:
    """Pixels to a code of an export, along one side."""
    return make_autoencoder(config_of(export.architecture)).downsampling


def coding_of(export: Export) -> Coding:
    """Both directions of an export, as pure functions of its weights."""
    return make_coding(
        make_autoencoder(config_of(export.architecture)), quantizer_of(export.architecture)
    )
