"""Plain vector quantization: each encoding becomes its nearest codeword."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mq_jax.quantizers.nearest import Lookup
from mq_jax.quantizers.straight_through import apply_straight_through


class Quantized(NamedTuple):
    """The result of any quantizer.

    Attributes:
      z_q: f32[..., D], the codewords of the codes.
      z_hat: f32[..., D], the same value with the straight-through gradient, for the decoder.
      indices: i32[...] in [0, K).
      loss: f32[], mean((z - z_q)^2), with no gradient stopped.
    """

    z_q: jax.Array
    z_hat: jax.Array
    indices: jax.Array
    loss: jax.Array


def quantize(
    z: jax.Array, codebook: jax.Array, *, straight_through: str, lookup: Lookup
) -> Quantized:
    """Replaces each encoding by its nearest codeword.

    Args:
      z: f32[..., D], encodings.
      codebook: f32[K, D].
      straight_through: one of STRAIGHT_THROUGH.
      lookup: nearest_codeword, or one of its kind.

    Returns:
      A Quantized. Its loss stops no gradient: *which argument is differentiated* says who
      learns. Stopped on either side, it would cut the indirect part of the hyper-gradient.
    """
    indices = lookup(z, codebook)
    z_q = codebook[indices]
    z_hat = apply_straight_through(z, z_q, kind=straight_through)
    return Quantized(z_q, z_hat, indices, jnp.mean(jnp.square(z - z_q)))
