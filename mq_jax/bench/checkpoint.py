"""What the loop waits for at a checkpoint."""

import statistics
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.saving import Saver
from mq_jax.runs.trees import copied
from mq_jax.terminal import console
from mq_jax.training.build import build
from mq_jax.training.first import init_state

# About as many as the state of a VQGAN has, of nearly nothing each: what is left is their number.
SMALL, SMALL_SIZE = 900, 1024


def bench_checkpoint(config: ConfigDict, rounds: int) -> None:
    """Times saves until the loop may go on: on its own thread, and by the saver of a training.

    Args:
      config: validated; its state is saved.
      rounds: interleaved saves after the first; medians count.
    """
    arrays = [jnp.full(SMALL_SIZE, number, jnp.float32) for number in range(SMALL)]
    trees = {
        "the state": init_state(build(config, steps=1000), config),
        "small ones": dict(enumerate(arrays)),
    }
    rows = []
    for name, tree in trees.items():
        leaves = jax.tree.leaves(tree)
        size = sum(leaf.nbytes for leaf in leaves) / 1e6
        for way, (walls, processors) in _blocked(tree, rounds).items():
            cells = [
                f"{seconds:.4f}"
                for each in (walls, processors)
                for seconds in (each[0], statistics.median(each[1:]))
            ]
            rows.append([name, f"{len(leaves)}", f"{size:.1f}", way, *cells])
    console.print_table(
        f"Seconds until the loop goes on after a save, medians of {rounds} after the first",
        [
            *("arrays", "number", "MB", "written by"),
            *("first", "later", "first, processor", "later, processor"),
        ],
        rows,
    )


def _blocked(tree: Any, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Wall seconds, and the calling thread's processor seconds, of each save, by way."""
    # Compiled before the first step of a training, too.
    jax.block_until_ready(copied(tree))
    with (
        tempfile.TemporaryDirectory() as folder,
        Checkpoints(f"{folder}/own") as own,
        Checkpoints(f"{folder}/behind") as others,
        Saver(others, lambda: None) as saver,
    ):
        ways = {
            "the loop's thread": (own, lambda step: own.save(step, tree, {}, None)),
            "the saver": (saver, lambda step: saver.save(step, copied(tree), {}, None)),
        }
        found = {way: ([], []) for way in ways}
        for step in range(1, rounds + 2):
            for way, (whose, save) in ways.items():
                wall, processor = time.perf_counter(), time.thread_time()
                save(step)
                found[way][0].append(time.perf_counter() - wall)
                found[way][1].append(time.thread_time() - processor)
                whose.wait()
    return found
