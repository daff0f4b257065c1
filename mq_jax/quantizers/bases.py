"""What a codebook's embedding E, its base, starts from; and where it lies, to be frozen."""

from collections.abc import Callable, Sequence
from typing import Any

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


def started_from(tree: Any, tables: Sequence[jax.Array]) -> Any:
    """What `init` returns, with tables in the place of the drawn ones.

    Args:
      tree: (params, state) of a quantizer.
      tables: f[K, D_e] of each base, in the order of groups and, within one, of levels. Running
        means (EMA) start from them as their sums, which are the codewords under counts of one.

    Returns:
      A tree like it.

    Raises:
      ValueError: there are more or fewer bases than tables, or one has another shape.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    places = [i for i, (path, _) in enumerate(leaves) if is_base(path) or _is_sums(path)]
    if len(places) != len(tables):
        raise ValueError(f"The quantizer has {len(places)} bases; got {len(tables)} tables.")
    values = [leaf for _, leaf in leaves]
    for place, table in zip(places, tables, strict=True):
        values[place] = given(table)(None, values[place].shape, values[place].dtype)
    return jax.tree_util.tree_unflatten(structure, values)


def is_base(path: tuple) -> bool:
    """Whether a leaf of a quantizer's parameters is an E: what an optimizer leaves as it is.

    Args:
      path: keys of the leaf, as jax.tree_util.tree_map_with_path gives them.

    Returns:
      True at any depth: levels and groups have one each.
    """
    return any(getattr(key, "key", None) == "embedding" for key in path)


def _is_sums(path):
    """Whether a leaf is the sums of running means."""
    return getattr(path[-1], "key", None) == "sums"
