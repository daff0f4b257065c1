"""What the formats for VQGAN's net have in common: what they cannot hold, and their arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mq_jax.peers.layouts import theirs
from mq_jax.peers.names import Names, tensors
from mq_jax.peers.net import Net, net_of
from mq_jax.tokenizers.architecture import config_of, quantizer_in_words
from mq_jax.tokenizers.export import Export, named

# Their codes are the nearest codewords; on the unit sphere too, where all have one norm.
_NEAREST = ("vq", "l2", "cvq", "ema", "sqvae")

_PLAIN = {"kind": "vq", "groups": 1, "depth": 1}


def problem_of(architecture: Mapping[str, Any]) -> str | None:
    """What of a model no VQGAN of other programs has.

    Args:
      architecture: of an export.

    Returns:
      A phrase, or None.
    """
    model, quantizer = architecture["model"], architecture.get("quantizer", _PLAIN)
    own = quantizer.get(quantizer["kind"], {})
    if model["kind"] != "vqgan":
        return f"its net is of kind {model['kind']}, not vqgan"
    if model["layer_norm"]:
        return "it has LayerNorm before the quantizer (model.layer_norm)"
    if quantizer["groups"] * quantizer["depth"] > 1:
        return f"a position has {quantizer['groups'] * quantizer['depth']} codes, not one"
    if quantizer["kind"] not in _NEAREST or own.get("cosine") or own.get("variance") == "III":
        return (
            f"its codes are those of {quantizer_in_words(architecture)}, not the nearest codeword"
        )
    if model["blocks"] < 1:
        return "its levels have no residual block in the encoder (model.blocks)"
    return None


def net_of_export(architecture: Mapping[str, Any]) -> Net:
    """The net of a model without a problem.

    Args:
      architecture: of an export.

    Returns:
      A Net.
    """
    return net_of(config_of(architecture))


def state_of(export: Export, names: Names) -> dict[str, np.ndarray]:
    """The arrays of a model under the names of a format, in its layouts.

    Args:
      export: without a problem.
      names: of the format.

    Returns:
      f32[...] by name, row by row.
    """
    arrays = named(export.weights)
    found = tensors(net_of_export(export.architecture), names)
    # Copied where axes change places: safetensors writes the memory of an array as it lies.
    return {
        each.theirs: np.ascontiguousarray(theirs(arrays[each.ours], each.layout)) for each in found
    }


def pixels(architecture: Mapping[str, Any]) -> str:
    """The range of the pixels that the net takes and makes.

    Args:
      architecture: of an export.

    Returns:
      An interval.
    """
    return "[0, 1]" if architecture["model"].get("unit_pixels", False) else "[-1, 1]"
