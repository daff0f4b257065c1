"""What a codebook's embedding E, its base, starts from; and where it lies, to be frozen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def scaled_normal(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
    """N(0, 1 / D_e): rows of norm about one, the frozen base of SimVQ (Zhu et al., 2025).

    Args:
      key: key.
      shape: of E, (K, D_e).
      dtype: of it.

    Returns:
      f[K, D_e].
    """
    return jax.random.normal(key, shape, dtype) * shape[-1] ** -0.5


def given(table: jax.Array) -> Callable:
    """A base that was made elsewhere: centres of features, or a file (Zhu et al., 2024, LC).

    Args:
      table: f[K, D_e]. Within a jitted `init` it becomes a constant of that program: for a large
        one, call init as it is.

    Returns:
      An initializer; it raises ValueError where E has another shape.
    """

    def init(key, shape, dtype=jnp.float32):
        if table.shape != tuple(shape):
            raise ValueError(
                f"The base has shape {table.shape}; expected {tuple(shape)}, a row for each "
                "codeword and a column for each channel of the embedding."
            )
        return jnp.asarray(table, dtype)

    return init


def is_base(path: tuple) -> bool:
    """Whether a leaf of a quantizer's parameters is an E: what an optimizer leaves as it is.

    Args:
      path: keys of the leaf, as jax.tree_util.tree_map_with_path gives them.

    Returns:
      True at any depth: levels and groups have one each.
    """
    return any(getattr(key, "key", None) == "embedding" for key in path)
