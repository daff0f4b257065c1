"""Which of the two stages a configuration is of."""

from collections.abc import Mapping
from typing import Any


def is_prior(config: Mapping[str, Any]) -> bool:
    """Whether it is that of a prior, the second stage.

    Args:
      config: of an experiment or a run, nested or flat.

    Returns:
      False for the first stage, an auto-encoder and its quantizer.
    """
    return "prior" in config or "prior.kind" in config
