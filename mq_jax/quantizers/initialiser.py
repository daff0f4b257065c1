"""PyTorch's default initialiser, which Flax does not have: for hyper-nets, and for models/ too."""

import jax
import jax.numpy as jnp


def uniform_fan_in(fan_in: int):
    """PyTorch's default initialiser of a dense layer: uniform in +-1/sqrt(fan_in).

    Args:
      fan_in: inputs of the layer; the bias uses it too.

    Returns:
      A Flax initialiser.
    """
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
