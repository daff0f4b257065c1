"""LPIPS as a run has it: which net, its weights, its function."""

import functools
from collections.abc import Callable
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


def load_frozen(config: ConfigDict, *, training: bool = True) -> Frozen:
    """Reads the weights of LPIPS.

    Args:
      config: validated.
      training: whether those of the loss are wanted.

    Returns:
      A Frozen, on the host.

    Raises:
      FileNotFoundError: they are not there; says how to get them.
      ValueError: they are damaged.
    """
    nets = Frozen(config.perceptual.net if training else "none", config.eval.lpips)
    loaded = {net: load_weights(net, config.perceptual.dir) for net in {*nets} - {"none"}}
    loaded["none"] = ()
    return Frozen(*[loaded[net] for net in nets])


def frozen_shapes(config: ConfigDict) -> Any:
    """Shapes of what Frozen.training holds, without reading it."""
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
