"""The second stage: a prior over a token set, for the loop to train."""

import pathlib

from absl import logging
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.generation.space import TokenSpace
from mq_jax.priors.build import build
from mq_jax.priors.feed import TokenFeed
from mq_jax.priors.likelihood import Likelihood
from mq_jax.priors.program import compile_program, first_state
from mq_jax.priors.state import MONITOR
from mq_jax.priors.step import LOSS
from mq_jax.runs.standing import FIRST
from mq_jax.tokensets.reading import TokenSet
from mq_jax.training.account import log_compiling
from mq_jax.training.kept import place_of
from mq_jax.training.loop import run_stage
from mq_jax.training.stage import Seen, Stage


def train_prior(
    config: ConfigDict,
    steps: int,
    space: TokenSpace,
    tokens: TokenSet,
    eval_tokens: TokenSet,
    workdir: pathlib.Path,
) -> str:
    """Trains until the last step, early stopping or a signal; resumes where it was.

    Args:
      config: validated; the workdir is claimed for it.
      steps: of the whole run, from build.steps_of.
      space: of both sets, from spaces.space_of.
      tokens: that are trained on.
      eval_tokens: that validate.
      workdir: holds all outputs.

    Returns:
      Why it ended: "finished", "stopped early" or the name of a signal.

    Raises:
      FloatingPointError: a loss, a gradient or a parameter is infinite or not a number.
      OSError: an output could not be written.
      ValueError: a record of tokens is damaged, or no checkpoint can be restored.
    """

    def make_stage():
        return _make_stage(config, steps, space, tokens, eval_tokens)

    return run_stage(make_stage, workdir, monitor=MONITOR)


def _make_stage(config, steps, space, tokens, eval_tokens) -> Stage:
    """Builds, and begins to compile."""
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
    feed = TokenFeed(config, tokens, space, mesh)
    built = build(config, space, steps)
    _log_space(space)
    log_compiling(config.prior.kind)
    program = compile_program(config, built, mesh, place_of(config, mesh, steps, space))
    likelihood = Likelihood(config, built.prior, eval_tokens, mesh)
    return Stage(
        config=config,
        steps=steps,
        monitor=MONITOR,
        settled=FIRST,
        loss=LOSS,
        mesh=mesh,
        program=program,
        step_at=lambda number: (program.steps().step, 1),
        feed=feed,
        frozen=(),
        start=lambda: first_state(config, built, mesh),
        evaluate=lambda state, step: Seen(likelihood.run(state), {}),
        begun=lambda step, row, window: [],
        remedy="a lower config.optimizer.clip",
    )


def _log_space(space):
    """What an image is to the prior."""
    codes = f"{space.height} x {space.width}" + (f" x {space.levels}" if space.levels > 1 else "")
    classes = f"{space.classes} classes" if space.classes else "no classes"
    logging.info("Tokens: %s of an image, each one of %s; %s", codes, f"{space.size:,}", classes)
