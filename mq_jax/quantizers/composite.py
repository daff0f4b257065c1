"""What quantizers made of several of one kind share: their trees, and the one axis of codes.

A tree (parameters, state, statistics, what is folded) is a tuple with an entry for each of them.
Codes of all lie on one last axis, those of the first before those of the second, whatever depth
each has itself.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.quantizer import Advanced, Quantizer


def init_each(inner: Quantizer, count: int, rng: jax.Array) -> tuple[tuple, tuple]:
    """(params, state) of each of `count` quantizers, drawn apart.

    Args:
      inner: the kind.
      count: how many.
      rng: key.

    Returns:
      Two tuples of `count` trees.
    """
    made = [inner.init(key) for key in jax.random.split(rng, count)]
    params, states = zip(*made, strict=True)
    return params, states


def advance_each(
    inner: Quantizer, params: tuple, states: tuple, statistics: tuple, rng: jax.Array
) -> Advanced:
    """Advances each by its own statistics.

    Args:
      inner: the kind.
      params: of each.
      states: of each.
      statistics: of each, with an axis of parts.
      rng: key.

    Returns:
      Advanced, of tuples.
    """
    keys = jax.random.split(rng, len(params))
    trees = zip(params, states, statistics, keys, strict=True)
    advanced = [inner.advance(*each) for each in trees]
    params, states, replaced = zip(*advanced, strict=True)
    return Advanced(params, states, None if replaced[0] is None else replaced)


def join_codes(indices: Sequence[jax.Array], depth: int) -> jax.Array:
    """The codes of each on one axis.

    Args:
      indices: i32[...] of each, or i32[..., depth] where they have an axis themselves.
      depth: of each, 0 for none.

    Returns:
      i32[..., J].
    """
    return jnp.concatenate(indices, axis=-1) if depth else jnp.stack(indices, axis=-1)


def part_codes(indices: jax.Array, count: int, depth: int) -> list[jax.Array]:
    """The inverse of join_codes.

    Args:
      indices: i32[..., J].
      count: how many share the axis.
      depth: of each, 0 for none.

    Returns:
      `count` arrays, i32[...] or i32[..., depth].

    Raises:
      ValueError: where J is not what they have together.
    """
    expected = count * max(depth, 1)
    if indices.shape[-1] != expected:
        raise ValueError(
            f"A position has {indices.shape[-1]} codes; expected {expected}, on the last axis."
        )
    if depth:
        return jnp.split(indices, count, axis=-1)
    return [indices[..., each] for each in range(count)]


def keys_of(rng: jax.Array | None, count: int) -> Sequence[Any]:
    """A key for each.

    Args:
      rng: key, or None where nothing is drawn.
      count: how many.

    Returns:
      `count` keys, or as many times None.
    """
    return [None] * count if rng is None else jax.random.split(rng, count)
