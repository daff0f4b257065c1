"""Codes of bits: their indices, and entropies over all 2^L of them without a table."""

import jax
import jax.numpy as jnp
import numpy as np


def pack_bits(bits: jax.Array) -> jax.Array:
    """The number that bits write; the first channel is the lowest bit.

    Args:
      bits: bool[..., L], L at most 30.

    Returns:
      i32[...] in [0, 2^L).
    """
    places = np.left_shift(1, np.arange(bits.shape[-1])).astype(np.int32)
    return jnp.sum(bits * places, axis=-1, dtype=jnp.int32)


def unpack_bits(indices: jax.Array, count: int) -> jax.Array:
    """The bits of a number.

    Args:
      indices: i32[...] in [0, 2^L).
      count: L.

    Returns:
      bool[..., L], the lowest bit first.
    """
    return (indices[..., None] >> np.arange(count, dtype=np.int32)) & 1 == 1


def token_entropy(logits: jax.Array) -> jax.Array:
    """The mean entropy of a token's distribution over codes.

    Bits of a token are independent, so it is the sum of theirs: no array of 2^L is needed.

    Args:
      logits: f32[..., L], log-odds of each bit.

    Returns:
      f32[], nats.
    """
    set_, unset = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    entropies = set_ * jax.nn.softplus(-logits) + unset * jax.nn.softplus(logits)
    return jnp.mean(jnp.sum(entropies, axis=-1))


def batch_entropy(logits: jax.Array, group: int) -> jax.Array:
    """The entropy of the mean over tokens of their distributions over codes.

    Exact where a group holds all L bits; else the sum over groups of theirs, an upper bound. The
    mean of products over 2^g codes is one matrix product of 2^(g/2) by 2^(g/2).

    Args:
      logits: f32[..., L], log-odds of each bit.
      group: bits of a group, at most; the groups are as even as can be.

    Returns:
      f32[], nats.
    """
    logits = logits.reshape(-1, logits.shape[-1])
    groups = -(-logits.shape[-1] // group)
    return sum(map(_group_entropy, jnp.array_split(logits, groups, axis=-1)))


def _group_entropy(logits):
    """The entropy of the mean distribution over all codes of f32[N, g]."""
    middle = logits.shape[-1] // 2
    low, high = _distributions(logits[:, :middle]), _distributions(logits[:, middle:])
    mean = jnp.matmul(low.T, high, precision=jax.lax.Precision.HIGHEST) / len(logits)
    # The slope of p ln p is infinite at zero, where a code is out of every token's reach.
    return -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-30)))


def _distributions(logits):
    """f32[N, 2^g], each token's probabilities of the codes of f32[N, g]."""
    found = jnp.ones((len(logits), 1), logits.dtype)
    for bit in range(logits.shape[-1]):
        set_, unset = jax.nn.sigmoid(logits[:, bit]), jax.nn.sigmoid(-logits[:, bit])
        found = jnp.concatenate([found * unset[:, None], found * set_[:, None]], axis=-1)
    return found
