"""Weights that the loss reads and no level trains: those of LPIPS."""

from typing import Any

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
