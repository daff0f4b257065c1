"""Attention of queries that may be later than the first key."""

import jax
import jax.numpy as jnp


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    causal: bool,
    start: jax.Array | int | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v of each head, over all keys or over those not later.

    JAX's own `is_causal` puts the first query beside the first key: with a cache, one query would
    see key 0 alone. Here a query's place is `start` plus its own number.

    Args:
      query: f[B, T, H, d].
      key: f[B, S, H, d]; of a cache, the places not yet written have any finite value.
      value: f[B, S, H, d].
      causal: whether the query at place p sees keys 0 to p alone.
      start: i32[], place of the first query among the keys, start + T <= S. None: queries and keys
        are of the same places.

    Returns:
      f[B, T, H, d] of the queries' dtype; q k^T and the softmax are float32.

    Raises:
      ValueError: shapes or types disagree, or there is no telling the queries' places.
    """
    _check(query, key, value)
    length, places = query.shape[1], key.shape[1]
    if not causal:
        if start is not None:
            raise ValueError("attend has a start and is not causal; expected either.")
        return jax.nn.dot_product_attention(query, key, value)
    if start is None:
        if length != places:
            raise ValueError(
                f"attend is causal over {length} queries and {places} keys; expected as many, or "
                "the place of the first query."
            )
        return jax.nn.dot_product_attention(query, key, value, is_causal=True)
    seen = jnp.arange(places) <= start + jnp.arange(length)[:, None]
    return jax.nn.dot_product_attention(query, key, value, mask=seen[None, None])


def _check(query, key, value):
    """Holds shapes and types to one another; JAX would take fewer key heads for groups."""
    alike = key.shape == value.shape and query.ndim == key.ndim == 4
    same = alike and (query.shape[0], *query.shape[2:]) == (key.shape[0], *key.shape[2:])
    if not same or not query.dtype == key.dtype == value.dtype:
        given = ", ".join(f"{x.dtype}{list(x.shape)}" for x in (query, key, value))
        raise ValueError(
            f"attend has query, key, value {given}; expected [B, T, H, d], [B, S, H, d] and "
            "[B, S, H, d] of one dtype."
        )
