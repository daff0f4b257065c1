"""LPIPS as a function of weights and images."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mq_jax.models import lpips


@functools.cache
def perceptual_distance(
    net: str,
    dtype: str = "float32",
    remat: bool = False,
    precision: jax.lax.Precision | None = None,
) -> Callable:
    """LPIPS under one of its nets; the same function for the same arguments.

    Args:
      net: one of lpips.NETS.
      dtype: of the convolutions.
      remat: whether stages are computed again instead of kept.
      precision: of the products; None: JAX's default, which suits a loss; HIGHEST a measure.

    Returns:
      (weights, images f32[B, H, W, 3], reconstructions f32[B, H, W, 3]) -> f32[B].
    """
    settings = {"dtype": jnp.dtype(dtype), "remat": remat, "precision": precision}
    return functools.partial(lpips.lpips, net=net, **settings)
