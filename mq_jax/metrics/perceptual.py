"""LPIPS as a run has it: which net, its weights, its function."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.models import lpips
from mq_jax.models.lpips_weights import load_weights


def load_frozen(config: ConfigDict) -> Any:
    """Reads the weights of LPIPS that the loss needs, which no level trains.

    Args:
      config: validated.

    Returns:
      The weights, on the host; empty where the loss has no LPIPS.

    Raises:
      FileNotFoundError: they are not there; says how to get them.
      ValueError: they are damaged.
    """
    net = config.perceptual.net
    return () if net == "none" else load_weights(net, config.perceptual.dir)


def frozen_shapes(config: ConfigDict) -> Any:
    """Shapes of what load_frozen returns, without reading it."""
    return () if config.perceptual.net == "none" else lpips.weight_shapes(config.perceptual.net)


@functools.cache
def perceptual_distance(net: str, dtype: str = "float32", remat: bool = False) -> Callable:
    """LPIPS under one of its nets; the same function for the same arguments.

    Args:
      net: one of lpips.NETS.
      dtype: of the convolutions.
      remat: whether stages are computed again instead of kept.

    Returns:
      (weights, images f32[B, H, W, 3], reconstructions f32[B, H, W, 3]) -> f32[B].
    """
    return functools.partial(lpips.lpips, net=net, dtype=jnp.dtype(dtype), remat=remat)
