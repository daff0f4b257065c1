"""Estimators of a gradient through the rounding to codewords."""

import jax

STRAIGHT_THROUGH = ("encoder", "encoder-and-codewords")


def apply_straight_through(z: jax.Array, z_q: jax.Array, *, kind: str) -> jax.Array:
    """The value of z_q with a gradient that passes the rounding by.

    `encoder` (the paper's): the gradient reaches z alone, and the task loss reaches the
    codewords only through the hyper-gradient. `encoder-and-codewords`: the gradient reaches
    z and, undiminished, z_q as well: another algorithm.

    Args:
      z: f32[..., D], encodings.
      z_q: f32[..., D], their codewords.
      kind: one of STRAIGHT_THROUGH.

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
    raise ValueError(f"straight_through is {kind!r}; expected one of {STRAIGHT_THROUGH}.")
