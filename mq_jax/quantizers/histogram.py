"""How often codes occur, and what that tells."""

import jax
import jax.numpy as jnp


def code_counts(indices: jax.Array, size: int) -> jax.Array:
    """How often each code occurs.

    Args:
      indices: i32[...] in [0, K).
      size: K.

    Returns:
      i32[K]; it sums to the number of indices.
    """
    return jnp.zeros(size, jnp.int32).at[indices.reshape(-1)].add(1)


def usage(counts: jax.Array) -> jax.Array:
    """The share of codes that occur at all.

    Args:
      counts: i32[K], the merged histogram of a whole data set.

    Returns:
      f32[] in [0, 1].
    """
    return jnp.mean(counts > 0, dtype=jnp.float32)


def perplexity(counts: jax.Array) -> jax.Array:
    """exp of the entropy of the code distribution: the number of codes in effective use.

    Args:
      counts: i32[K], the merged histogram of a whole data set.

    Returns:
      f32[] in [1, K], or 1 for an empty histogram.
    """
    counts = counts.astype(jnp.float32)
    p = counts / jnp.maximum(jnp.sum(counts), 1)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p)))
