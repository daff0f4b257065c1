"""Estimators of a gradient through the rounding to codewords."""

import jax
import jax.numpy as jnp

STRAIGHT_THROUGH = ("encoder", "encoder-and-codewords", "rotation", "diveq")

# Below it a direction has no meaning in float32.
_TINY = 1e-12


def apply_straight_through(
    z: jax.Array,
    z_q: jax.Array,
    *,
    kind: str,
    noise: float = 0.0,
    rng: jax.Array | None = None,
) -> jax.Array:
    """The value of z_q with a gradient that passes the rounding by.

    `encoder` (the paper's): the gradient reaches z alone, and the task loss reaches the
    codewords only through the hyper-gradient. `encoder-and-codewords`: the gradient reaches
    z and, undiminished, z_q as well: another algorithm. `rotation` (Fifty et al., 2025): z is
    turned and scaled onto z_q by a map that counts as a constant, so the gradient reaches z
    alone, turned back. `diveq` (Vali et al., 2026): z moves by its distance to z_q along a
    constant direction, so that z_q receives the part of the gradient along it.

    Args:
      z: f32[..., D], encodings.
      z_q: f32[..., D], their codewords.
      kind: one of STRAIGHT_THROUGH.
      noise: standard deviation of what is added to the direction of `diveq`; 0: the value is
        z_q to rounding.
      rng: key of the noise.

    Returns:
      f32[..., D].

    Raises:
      ValueError: for a kind that is not among STRAIGHT_THROUGH.
    """
    if kind == "encoder":
        # The rounding error counts as a constant: d z_hat / dz = 1, d z_hat / d z_q = 0.
        return z + jax.lax.stop_gradient(z_q - z)
    if kind == "encoder-and-codewords":
        # z enters with value zero and slope one: d z_hat / dz = 1, d z_hat / d z_q = 1.
        return z_q + (z - jax.lax.stop_gradient(z))
    if kind == "rotation":
        return _rotated(z, z_q)
    if kind == "diveq":
        return _displaced(z, z_q, noise, rng)
    raise ValueError(f"straight_through is {kind!r}; expected one of {STRAIGHT_THROUGH}.")


def _rotated(z, z_q):
    """lambda (z - 2 r (r.z) + 2 q (e.z)): z turned from its direction e to that of z_q, q.

    r halves the angle between e and q; lambda = ||z_q|| / ||z||.
    """
    # The map is a constant: its own derivative would undo the straight-through value.
    start, end = jax.lax.stop_gradient((z, z_q))
    norm, target = _norm(start), _norm(end)
    e, q = start / jnp.maximum(norm, _TINY), end / jnp.maximum(target, _TINY)
    half = _norm(e + q)
    r = (e + q) / jnp.maximum(half, _TINY)
    turned = z - 2 * r * _dot(r, z) + 2 * q * _dot(e, z)
    # Of no direction, or of the opposite one, there is no such turn.
    defined = (norm > _TINY) & (target > _TINY) & (half > 1e-3)
    scale = jnp.where(defined, target / jnp.maximum(norm, _TINY), 1.0)
    straight = z + (end - start)
    return jnp.where(defined, scale * turned, straight)


def _displaced(z, z_q, noise, rng):
    """z + ||z_q - z|| v, v the direction from z to z_q, a constant."""
    offset = z_q - z
    square = jnp.sum(jnp.square(offset), axis=-1, keepdims=True)
    # The root's slope is infinite at zero, where z is its codeword and nothing is to be moved.
    apart = square > _TINY**2
    distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)
    if noise:
        offset = offset + noise * jax.random.normal(rng, offset.shape, offset.dtype)
    # The direction is a constant: only how far z moves has a derivative.
    direction = jax.lax.stop_gradient(offset / jnp.maximum(_norm(offset), _TINY))
    return z + distance * direction


def _norm(x):
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


def _dot(a, b):
    return jnp.sum(a * b, axis=-1, keepdims=True)
