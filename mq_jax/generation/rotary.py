"""Rotary positions on a grid."""

import jax
import jax.numpy as jnp
import numpy as np


def grid_angles(height: int, width: int, channels: int, base: float = 1e4) -> np.ndarray:
    """Angles of the class's position and of every place of the grid, row by row.

    With f_j = base^(-4 j / d), j < d/4: the first d/4 pairs of channels turn by row f_j, the others
    by column f_j (Su et al., 2021, on two axes as in LlamaGen). The class does not turn.

    Args:
      height: of the grid.
      width: of the grid.
      channels: d of a head, a multiple of 4.
      base: of the frequencies.

    Returns:
      f32[1 + height width, d/2], in radians.

    Raises:
      ValueError: d is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"Rotary positions turn {channels} channels; expected a multiple of 4.")
    frequencies = base ** (-4 * np.arange(channels // 4) / channels)
    rows, columns = np.divmod(np.arange(height * width), width)
    turned = np.concatenate([np.outer(rows, frequencies), np.outer(columns, frequencies)], axis=1)
    return np.concatenate([np.zeros((1, channels // 2)), turned]).astype(np.float32)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Turns each pair (x_2i, x_2i+1) by angle i of its position.

    Args:
      x: f[B, T, H, d].
      angles: f32[T, d/2], in radians.

    Returns:
      f[B, T, H, d], computed in float32.
    """
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    first, second = x[..., 0::2], x[..., 1::2]
    turned = first * cos - second * sin, first * sin + second * cos
    return jnp.stack(turned, axis=-1).reshape(x.shape).astype(x.dtype)
