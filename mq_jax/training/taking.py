"""A configuration as a person gave it, made whole before anybody reads it."""

from ml_collections import ConfigDict

from mq_jax.training.quantizing import sizes
from mq_jax.training.validate import field_problems


def take_sizes(config: ConfigDict) -> None:
    """Writes K and D into a configuration whose kind makes them, for all who read them there.

    Args:
      config: codebook.size and codebook.dim are set; one with a wrong field stays as it is, for
        `validate` to refuse.
    """
    if next(field_problems(config), None) is None:
        config.codebook.size, config.codebook.dim = sizes(config)
