"""The first stage: an auto-encoder and its quantizer, for the loop to train."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mq_jax.algorithm.state import Parts, TrainState
from mq_jax.data.feed import Feed
from mq_jax.data.sources import Source
from mq_jax.devices import sharding
from mq_jax.evaluation.code_use import codebook_of
from mq_jax.evaluation.evaluate import Evaluation, Evaluator
from mq_jax.images.scale import comparison
from mq_jax.metrics.measures import Measures
from mq_jax.runs.snapshot import write_snapshot
from mq_jax.runs.trees import with_leaves
from mq_jax.runs.workdir import flat
from mq_jax.runs.writers import for_people
from mq_jax.training.account import log_beginning
from mq_jax.training.build import build, settled_step
from mq_jax.training.first import drawn, first_state
from mq_jax.training.health import Watch
from mq_jax.training.kept import place_of
from mq_jax.training.loop import run_stage
from mq_jax.training.origin import Beginning
from mq_jax.training.program import compile_program
from mq_jax.training.stage import Seen, Stage
from mq_jax.training.starting import starting_tables


def monitored(config: ConfigDict) -> str:
    """The logged name of the metric, lower is better, that decides which checkpoint is best."""
    return f"eval/{config.eval.monitor}"


def train(
    config: ConfigDict,
    steps: int,
    sources: Parts,
    eval_source: Source,
    frozen: Any,
    measures: Measures,
    workdir: pathlib.Path,
    beginning: Beginning | None = None,
) -> str:
    """Trains until the last step, early stopping or a signal; resumes where it was.

    Args:
      config: validated; the workdir is claimed for it.
      steps: of the whole run, from build.total_steps.
      sources: from inputs.open_training.
      eval_source: from inputs.open_evaluation.
      frozen: from frozen.load_frozen.
      measures: of config.eval.metrics, from measures.load_measures.
      workdir: holds all outputs.
      beginning: weights of another model, for a run that has not begun; None: its own.

    Returns:
      Why it ended: "finished", "stopped early" or the name of a signal.

    Raises:
      FloatingPointError: a loss, a gradient or a parameter is infinite or not a number.
      OSError: an output could not be written.
      ValueError: too many unreadable images, or no checkpoint that can be restored.
    """
    rule = {"monitor": monitored(config), "settled": settled_step(config, steps)}

    def make_stage():
        given = sources, eval_source, frozen, measures, workdir, beginning
        return _make_stage(config, steps, *given, **rule)

    return run_stage(make_stage, workdir, **rule)


def _make_stage(
    config, steps, sources, eval_source, frozen, measures, workdir, beginning, **rule
) -> Stage:
    """Builds, and begins to compile."""
    watch = Watch(
        codebook_of(flat(config.to_dict())),
        round(config.train.warmup * steps),
        config.train.log_every,
    )
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
    feed = Feed(config, sources, mesh)
    built = build(config, steps, mesh)
    log_beginning(config, built.problem.objective.autoencoder.downsampling)
    program = compile_program(config, built, mesh, place_of(config, mesh, steps))
    frozen = jax.device_put(frozen, sharding.replicated(mesh))
    evaluator = Evaluator(config, built.objective, eval_source, mesh, measures)

    def step_at(number):
        steps = program.steps()
        inner_only = steps.inner_step and not feed.outer_due(number)
        return (steps.inner_step if inner_only else steps.step), feed.updates(number)

    def begin():
        taken = {} if beginning is None else beginning.give(workdir)
        model = with_leaves(drawn(config, built), taken)
        tables = starting_tables(config, built, sources.autoencoder, workdir, model, taken)
        return first_state(config, built, mesh, model, tables)

    return Stage(
        config=config,
        steps=steps,
        **rule,
        loss="inner/loss",
        mesh=mesh,
        program=program,
        step_at=step_at,
        feed=feed,
        frozen=frozen,
        start=begin,
        evaluate=functools.partial(_evaluate, evaluator),
        begun=lambda step, row, window: watch.begun(step, row, _drawn(window)),
        remedy="config.inner.clip, config.outer.clip and config.disc.clip",
    )


def _evaluate(evaluator: Evaluator, state: TrainState, step: int) -> Seen:
    """What the loop keeps of an evaluation."""
    found = evaluator.run(state)
    pictures = {"reconstructions": comparison(found.originals, found.reconstructions)}
    return Seen(found.scalars, pictures, functools.partial(_keep, found, step))


def _keep(found: Evaluation, step: int, folder: pathlib.Path) -> None:
    """Writes what the report shows of the best state."""
    with for_people("snapshot.npz"):
        write_snapshot(folder, found.snapshot(step))


def _drawn(window) -> int:
    """How many codes a window has seen."""
    return int(np.asarray(window.inner__usage.counts).sum(dtype=np.int64))
