"""The table of what codes decode to, of any quantizer, for those who look at codewords."""

from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.quantizer import Quantizer


def codewords(quantizer: Quantizer, folded: Any) -> jax.Array:
    """Every codeword, in the order of indices.

    Args:
      quantizer: of one code a position.
      folded: from its fold.

    Returns:
      f32[K, D].

    Raises:
      ValueError: where a position has several codes, of which no table lists the combinations.
    """
    if quantizer.depth:
        raise ValueError(
            f"A position has {quantizer.depth} codes; expected one: ask for the codewords of "
            "`inner`, with the entry of what is folded that belongs to it."
        )
    return quantizer.decode(folded, jnp.arange(quantizer.size, dtype=jnp.int32))
