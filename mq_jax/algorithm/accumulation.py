"""One after another: parts of a batch, of which one at a time is in memory, and updates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_parts(rows: jax.Array, parts: int) -> jax.Array:
    """[B, ...] -> [parts, B / parts, ...], each part with rows of every device."""
    return rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1)


def mean_over_parts(function: Callable[[Any], tuple[Any, Any]], batch: Any) -> tuple[Any, Any]:
    """The mean of a function over the parts of a batch, one part at a time.

    Args:
      function: part -> (what is averaged, aux).
      batch: leaves [parts, ...].

    Returns:
      (mean, aux with a leading axis over the parts).
    """
    parts = jax.tree.leaves(batch)[0].shape[0]
    first = jax.tree.map(lambda leaf: leaf[0], batch)
    # No loop of one either, nor a second trace for the shapes of its sums.
    if parts == 1:
        mean, aux = function(first)
        return mean, jax.tree.map(lambda leaf: leaf[None], aux)

    def visit(total, part):
        value, aux = function(part)
        return jax.tree.map(lambda t, x: t + x / parts, total, value), aux

    nothing = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first)[0]
    )
    return each(visit, nothing, batch)


def each(
    function: Callable,
    carry: Any,
    over: Any,
    *,
    reverse: bool = False,
    written_out: bool = False,
) -> tuple[Any, Any]:
    """jax.lax.scan, but no loop of one: XLA's CPU backend runs convolutions in one far slower.

    Args:
      function: (carry, slice) -> (carry, out).
      carry: before the first.
      over: leaves with a leading axis.
      reverse: whether the last slice comes first.
      written_out: whether the slices follow each other without a loop, for that backend; longer
        to compile, and more is kept in memory at a time.

    Returns:
      (carry, outs with a leading axis).
    """
    if jax.tree.leaves(over)[0].shape[0] != 1:
        return jax.lax.scan(function, carry, over, reverse=reverse, unroll=written_out)
    carry, out = function(carry, jax.tree.map(lambda leaf: leaf[0], over))
    return carry, jax.tree.map(lambda leaf: leaf[None], out)
