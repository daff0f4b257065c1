"""LPIPS as a run has it: which net, its weights, its function."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.models import lpips
from mq_jax.models.lpips_weights import load_weights


class Frozen(NamedTuple):
    """Weights of LPIPS, which no level trains; empty where there is none.

    Attributes:
      training: those that the loss reads.
      evaluation: those of the metric.
    """

    training: Any
    evaluation: Any


def load_frozen(config: ConfigDict) -> Frozen:
    """Reads the weights of LPIPS.

    Args:
      config: validated.

    Returns:
      A Frozen, on the host.

    Raises:
      FileNotFoundError: they are not there; says how to get them.
      ValueError: they are damaged.
    """
    names = {config.perceptual.net, config.eval.lpips} - {"none"}
    loaded = {name: load_weights(name, config.perceptual.dir) for name in names}
    loaded["none"] = ()
    return Frozen(loaded[config.perceptual.net], loaded[config.eval.lpips])


def frozen_shapes(config: ConfigDict) -> Any:
    """Shapes of what Frozen.training holds, without reading it."""
    return () if config.perceptual.net == "none" else lpips.weight_shapes(config.perceptual.net)


@functools.cache
def perceptual_distance(net: str, dtype: str = "float32", remat: bool = False) -> Any:
    """LPIPS under one of its nets; the same function for the same arguments.

    Args:
      net: one of lpips.NETS.
      dtype: of the convolutions.
      remat: whether stages are computed again instead of kept.

    Returns:
      (weights, images f32[B, H, W, 3], reconstructions f32[B, H, W, 3]) -> f32[B].
    """
    return functools.partial(lpips.lpips, net=net, dtype=jnp.dtype(dtype), remat=remat)
