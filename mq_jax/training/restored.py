"""A checkpoint of a run, to be evaluated, exported or measured: the best, or the one asked for."""

import math
import pathlib
from typing import NamedTuple

import jax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.algorithm.state import TrainState
from mq_jax.runs import standing
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.choosing import chosen_step
from mq_jax.training.build import Built, build
from mq_jax.training.lowering import checkpoint_target
from mq_jax.training.train import monitored


class Restored(NamedTuple):
    """A run's model as one of its checkpoints has it; `best`: the one that is taken unasked."""

    built: Built
    state: TrainState
    step: int
    best: bool


def restore(
    folder: pathlib.Path,
    config: ConfigDict,
    mesh: Mesh,
    step: int | None = None,
    *,
    steps: int = 1,
) -> Restored:
    """Reads the checkpoint that was asked for, by default the best, without its Past or Kept.

    Args:
      folder: of the run.
      config: of the run.
      mesh: over which the arrays are laid.
      step: of the checkpoint; None: the best, or the latest where none was evaluated.
      steps: of the whole run, which learning rates follow; any number where no step is taken.

    Returns:
      A Restored.

    Raises:
      ValueError: there is no such checkpoint, or it is damaged; says which others there are.
    """
    built = build(config, steps, mesh)
    rule = {"monitor": monitored(config), "settled": standing.read_settled(folder)}
    with Checkpoints(folder / "checkpoints", **rule, read_only=True) as saved:
        if step is None:
            _tell_of_before(folder, config)
        step, best = chosen_step(saved, step)
        target = checkpoint_target(config, built, mesh)
        past = target["state"].past
        # Of a step to come, and Kept also of the version of JAX that left it.
        target["state"] = target["state"].replace(past=())
        restored = saved.restore(target, step, partly=bool(past))
    return Restored(built, restored.tree["state"], step, step == best)


def _tell_of_before(folder: pathlib.Path, config: ConfigDict) -> None:
    """Warns of a run that does not know which of its evaluations compare."""
    sets_in = config.discriminator.start or config.discriminator.ramp
    if config.discriminator.weight and sets_in and not (folder / standing.FILE).exists():
        logging.warning(
            "%s has no %s, so its best step may be one before the whole weight of the adversarial "
            "term: its training command, given again, writes that; --step=N takes another",
            *(folder, standing.FILE),
        )


def move_to_this_machine(config: ConfigDict) -> None:
    """Changes the mesh to the devices of this machine, which need not be those of the run."""
    config.mesh.update(data=0, fsdp=math.gcd(config.mesh.fsdp, jax.device_count()))
