"""Reading one checkpoint, while its bytes are compared with their checksums."""

from __future__ import annotations

import dataclasses
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mq_jax.runs.earlier import beginnings
from mq_jax.runs.trees import by_path, differences, shapes
from mq_jax.runs.wholeness import require_unchanged, visible_damage


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held: its step, the tree in the target's structure, the JSON extra."""

    step: int
    tree: Any
    extra: dict[str, Any]


def read_step(
    manager: ocp.CheckpointManager,
    folder: pathlib.Path,
    place: pathlib.Path,
    abstract_tree: Any,
    *,
    partly: bool = False,
) -> Restored | str:
    """Reads a step folder; in several processes each compares a share of its bytes.

    Args:
      manager: of the step folders.
      folder: named as its step.
      place: of the step folders, as Orbax knows it.
      abstract_tree: as Checkpoints.restore's.
      partly: likewise.

    Returns:
      A Restored, or why the checkpoint is of another model.

    Raises:
      Exception: whatever Orbax raises for a damaged one.
      FileNotFoundError: the folder is not whole.
      ValueError: its bytes are not those that were written.
    """
    damage = visible_damage(folder)
    if damage is not None:
        raise FileNotFoundError(damage)
    with ThreadPoolExecutor(1) as beside:
        share = jax.process_index(), jax.process_count()
        unchanged = beside.submit(require_unchanged, folder, *share)
        try:
            return _arrays(manager, folder, place, abstract_tree, partly)
        finally:
            # Whatever came of it: the bytes must be those that were written.
            unchanged.result()


def _arrays(manager, folder, place, abstract_tree, partly) -> Restored | str:
    """As read_step, of a folder whose bytes are looked at elsewhere."""
    stored = ocp.StandardCheckpointHandler().metadata(place / folder.name / "tree").tree
    there, wanted = shapes(stored), shapes(abstract_tree)
    origins = beginnings(there, wanted)
    asked = {name: wanted[name] for name in wanted if name not in origins}
    compared = {name: there[name] for name in there if name in asked} if partly else there
    differing = differences(compared, asked)
    if differing:
        return (
            f"The checkpoint {folder} is of another model: {differing}. "
            "Use the configuration it was trained with."
        )
    targets = by_path(abstract_tree)
    read = {origin: targets[name] for name, origin in origins.items()} | targets
    # In the containers that were stored, as Orbax compares those too, the empty ones among them.
    names = jax.tree.unflatten(jax.tree.structure(stored), list(there))
    stored_targets = jax.tree.map(lambda name: read.get(name, ocp.PLACEHOLDER), names)
    # The one takes no placeholders, the other reads nothing for them.
    reading = _some if partly else ocp.args.StandardRestore
    items = {"tree": reading(stored_targets), "record": ocp.args.JsonRestore()}
    step = int(folder.name)
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    leaves = by_path(restored.tree)
    copied = {name: _copy(leaves[origin], targets[name]) for name, origin in origins.items()}
    leaves = [(leaves | copied)[name] for name in targets]
    tree = jax.tree.unflatten(jax.tree.structure(abstract_tree), leaves)
    return Restored(step, tree, restored.record["extra"])


def _some(targets) -> ocp.args.PyTreeRestore:
    """What makes Orbax read the leaves that are no placeholders."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(targets)
    return ocp.args.PyTreeRestore(item=targets, restore_args=restore_args)


def _copy(leaf, target):
    """An array of its own, as the target says: a step donates each once."""
    return jax.jit(jnp.copy, out_shardings=target.sharding)(leaf)
