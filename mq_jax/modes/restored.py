"""The best checkpoint of a run, to be evaluated or exported."""

import math
import pathlib
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.algorithm.state import TrainState
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.training.build import Built, build
from mq_jax.training.program import checkpoint_target
from mq_jax.training.train import monitored


class Restored(NamedTuple):
    """A run's model as its best checkpoint has it."""

    built: Built
    state: TrainState
    step: int


def restore_best(folder: pathlib.Path, config: ConfigDict, mesh: Mesh) -> Restored:
    """Reads the best checkpoint, or the latest where none was evaluated.

    Args:
      folder: of the run.
      config: of the run.
      mesh: over which the arrays are laid.

    Returns:
      A Restored.

    Raises:
      ValueError: there is no checkpoint, or it is damaged.
    """
    built = build(config, 1, mesh)
    monitor = monitored(config)
    with Checkpoints(folder / "checkpoints", monitor=monitor, read_only=True) as saved:
        step = saved.best_step if saved.best_step is not None else saved.latest_step
        if step is None:
            raise ValueError(f"{saved.directory} has no checkpoint; train first.")
        restored = saved.restore(checkpoint_target(config, built, mesh), step)
    return Restored(built, restored.tree["state"], step)


def move_to_this_machine(config: ConfigDict) -> None:
    """Changes the mesh to the devices of this machine, which need not be those of the run."""
    config.mesh.update(data=0, fsdp=math.gcd(config.mesh.fsdp, jax.device_count()))
