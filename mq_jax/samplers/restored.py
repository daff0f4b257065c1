"""A trained prior out of the folder of its run: the best checkpoint, or the one asked for."""

import dataclasses
import os
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.devices.places import local_path
from mq_jax.generation.prior import Prior
from mq_jax.generation.space import TokenSpace
from mq_jax.priors.build import make_prior
from mq_jax.priors.facts import read_facts
from mq_jax.priors.fields import validate
from mq_jax.priors.state import MONITOR
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.choosing import chosen_step
from mq_jax.runs.stages import is_prior
from mq_jax.runs.trees import by_path
from mq_jax.runs.workdir import read_config
from mq_jax.tokenizers.export import fingerprint


class RestoredPrior(NamedTuple):
    """A run's prior as one of its checkpoints has it.

    Attributes:
      config: of the run, validated.
      prior: over the tokens.
      params: as evaluation takes them, averages where they are kept; on all devices, whole.
      space: of the tokens.
      step: of the checkpoint.
    """

    config: ConfigDict
    prior: Prior
    params: Any
    space: TokenSpace
    step: int


def restored_prior(
    folder: str | os.PathLike, step: int | None = None, mesh: Mesh | None = None
) -> RestoredPrior:
    """Reads a prior's parameters and nothing else of the checkpoint: no optimizer is built.

    Args:
      folder: of the run of a prior.
      step: of the checkpoint; None: the best, or the latest where none was evaluated.
      mesh: whose devices hold the parameters; None: all.

    Returns:
      A RestoredPrior.

    Raises:
      FileNotFoundError: the folder is no run, or does not say what its tokens are.
      ValueError: it is a run of the first stage, there is no such checkpoint, or it is damaged.
    """
    folder = local_path(folder, "The run of a prior")
    config = ConfigDict(read_config(folder))
    if not is_prior(config):
        raise ValueError(
            f"{folder} is the run of a tokenizer; expected that of a prior, the second stage."
        )
    validate(config)
    facts = read_facts(folder)
    prior = make_prior(config, facts.space)
    kept = "ema" if config.train.ema_decay else "params"
    shapes = jax.eval_shape(prior.init, jax.random.key(0))
    target = sharding.whole({"state": {kept: shapes}}, mesh or sharding.make_mesh())
    with Checkpoints(folder / "checkpoints", monitor=MONITOR, read_only=True) as saved:
        step, _ = chosen_step(saved, step)
        params = saved.restore(target, step, partly=True).tree["state"][kept]
    return RestoredPrior(config, prior, params, facts.space, step)


def fingerprint_of(restored: RestoredPrior) -> str:
    """The sha256 of a prior: of the fields that say what it is, its space and its parameters.

    Args:
      restored: the prior.

    Returns:
      64 hexadecimal digits.
    """
    architecture = architecture_of(restored.config, restored.space)
    return fingerprint(architecture, by_path(restored.params))


def architecture_of(config: ConfigDict, space: TokenSpace) -> dict[str, Any]:
    """What a prior is, whatever its parameters; fit for JSON.

    Args:
      config: its section prior is read.
      space: of the tokens.

    Returns:
      A dictionary whose sha256 goes into the fingerprint.
    """
    return {"prior": config.prior.to_dict(), "space": dataclasses.asdict(space)}
