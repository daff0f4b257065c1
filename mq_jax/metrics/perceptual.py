"""LPIPS as a function of weights and images."""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from mq_jax.models import lpips


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
