"""How well a prior predicts tokens, in nats and in bits."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Prediction(NamedTuple):
    """Losses of a batch, of which `nats` and `tokens` add up over batches.

    Attributes:
      objective: f32[], what training minimises: a mean over the tokens that are predicted.
      nats: f32[], sum of -ln p of the tokens, without label smoothing.
      tokens: f32[], how many tokens that is of; a place has J.
    """

    objective: jax.Array
    nats: jax.Array
    tokens: jax.Array


def cross_entropy(logits: jax.Array, tokens: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """-(1 - a) ln p_t - (a / K) sum_k ln p_k, of each token.

    Args:
      logits: f32[..., K].
      tokens: i32[...] in [0, K).
      smoothing: a, in [0, 1).

    Returns:
      f32[...], in nats.
    """
    own = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    target = own if not smoothing else (1 - smoothing) * own + smoothing * logits.mean(-1)
    return jax.nn.logsumexp(logits, axis=-1) - target


def bits(nats: jax.Array | float) -> jax.Array | float:
    """Nats in bits.

    Args:
      nats: any number or array.

    Returns:
      nats / ln 2.
    """
    return nats / math.log(2)
