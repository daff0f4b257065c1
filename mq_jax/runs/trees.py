"""Questions to whole trees of arrays."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether no leaf has an infinity or a NaN.

    Args:
      tree: of float arrays.

    Returns:
      bool[].
    """
    # Nothing but these times zero is not zero; isfinite of each leaf compiles twice as long.
    return sum(jnp.sum(leaf * 0) for leaf in jax.tree.leaves(tree)) == 0


def lower_copies(described: Any) -> jax.stages.Lowered:
    """The program of `copied` before XLA sees it; once it is compiled, no call compiles it anew.

    Args:
      described: the tree, in descriptions with shardings.

    Returns:
      A Lowered.
    """
    leaves = jax.tree.leaves(described)
    return _copier(tuple(leaf.sharding for leaf in leaves)).lower(leaves)


def copied(tree: Any) -> Any:
    """Copies of all arrays on their devices, by one program that nobody waits for.

    Args:
      tree: of arrays.

    Returns:
      A tree like it; its arrays lie where those do, and share no memory with them.
    """
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(_copier(tuple(leaf.sharding for leaf in leaves))(leaves))


@functools.cache
def _copier(places):
    """A program of its own for each layout, so that each array is copied in its place."""
    return jax.jit(lambda leaves: [jnp.copy(leaf) for leaf in leaves], out_shardings=[*places])


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every array as a checkpoint stores it.

    Args:
      tree: of arrays or their descriptions.

    Returns:
      Shapes by path, the kinds of the containers left out; a random key counts as its words.
    """
    found = {}
    for name, leaf in by_path(tree).items():
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        found[name] = tuple(np.shape(leaf))
    return found


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree under the names that a checkpoint stores them by.

    Args:
      tree: any.

    Returns:
      Leaves by path, in their order, the kinds of the containers left out.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def with_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """A tree in which some leaves are others.

    Args:
      tree: of arrays.
      leaves: arrays of the same shapes, by path as by_path has it.

    Returns:
      A tree like it; what is put in takes the dtype of what it replaces.
    """
    found = [
        leaves[name].astype(leaf.dtype) if name in leaves else leaf
        for name, leaf in by_path(tree).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), found)


def differences(stored: dict[str, tuple], wanted: dict[str, tuple]) -> str:
    """The first differences between a checkpoint and a model, in words.

    Args:
      stored: shapes of the checkpoint.
      wanted: shapes of the model.

    Returns:
      Text, empty if there is none.
    """
    names = [name for name in {**wanted, **stored} if stored.get(name) != wanted.get(name)]
    shown = [
        f"{name} is {list(stored[name]) if name in stored else 'absent'} in the checkpoint, "
        f"{list(wanted[name]) if name in wanted else 'absent'} in the model"
        for name in names[:3]
    ]
    return "; ".join(shown + [f"and {len(names) - 3} more"] * (len(names) > 3))
