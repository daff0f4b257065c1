"""How many places are masked, and which."""

import jax
import jax.numpy as jnp


def cosine_count(way: jax.Array, places: int) -> jax.Array:
    """ceil(n cos(pi r / 2)) of n places, at least one (Chang et al., 2022).

    Args:
      way: r, f32[...] in [0, 1).
      places: n.

    Returns:
      i32[...] in [1, n].
    """
    count = jnp.ceil(places * jnp.cos(jnp.pi / 2 * way)).astype(jnp.int32)
    return jnp.clip(count, 1, places)


def uniform_count(way: jax.Array, places: int) -> jax.Array:
    """1 + floor(n r), each of 1 to n equally likely where r is uniform.

    Args:
      way: r, f32[...] in [0, 1).
      places: n.

    Returns:
      i32[...] in [1, n].
    """
    return jnp.clip(1 + jnp.floor(places * way).astype(jnp.int32), 1, places)


def choose_places(rng: jax.Array, counts: jax.Array, places: int) -> jax.Array:
    """So many places of each image, all sets of that many equally likely.

    Args:
      rng: a key.
      counts: i32[B].
      places: n.

    Returns:
      bool[B, n].
    """
    return lowest(jax.random.uniform(rng, (len(counts), places)), counts)


def lowest(values: jax.Array, counts: jax.Array) -> jax.Array:
    """Marks the lowest of each row; of equal ones, the first.

    Args:
      values: f32[B, n].
      counts: i32[B], how many.

    Returns:
      bool[B, n].
    """
    ranks = jnp.argsort(jnp.argsort(values, axis=-1), axis=-1)
    return ranks < counts[:, None]


def still_masked(masked: jax.Array, first: jax.Array, step: jax.Array, steps: int) -> jax.Array:
    """Places left to fill after a step: floor(m_0 cos(pi (t + 1) / (2 T))), one fewer at least.

    Until the last step, which leaves none, there is at least one (Chang et al., 2022).

    Args:
      masked: i32[B], before the step.
      first: m_0, i32[B], before the first step.
      step: t, i32[].
      steps: T.

    Returns:
      i32[B].
    """
    share = jnp.cos(jnp.pi / 2 * (step + 1) / steps)
    planned = jnp.floor(first * share).astype(jnp.int32)
    left = jnp.minimum(jnp.maximum(jnp.minimum(planned, masked - 1), 1), masked)
    return jnp.where(step + 1 < steps, left, 0)
