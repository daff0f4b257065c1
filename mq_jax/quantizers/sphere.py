"""Vectors on the unit sphere, and codewords compared there."""

import functools

import jax
import jax.numpy as jnp

from mq_jax.quantizers.nearest import Lookup


def unit_vectors(vectors: jax.Array) -> jax.Array:
    """Vectors over their norms.

    Args:
      vectors: f32[..., D].

    Returns:
      f32[..., D]; zeros stay zeros, with a gradient of zero.
    """
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    apart = square > 1e-24
    # The root's slope is infinite at zero.
    return jnp.where(apart, vectors * jax.lax.rsqrt(jnp.where(apart, square, 1.0)), 0.0)


@functools.cache
def cosine_lookup(lookup: Lookup) -> Lookup:
    """A lookup by angle: the index of the largest cosine, whatever the norms.

    Args:
      lookup: nearest_codeword, or one of its kind.

    Returns:
      (z f[..., D], codebook f[K, D]) -> i32[...]; the same function for the same lookup.
    """

    def by_angle(z, codebook):
        return lookup(unit_vectors(z), unit_vectors(codebook))

    return by_angle
