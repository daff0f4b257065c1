"""The training loop: build, restore, iterate, report, save. No mathematics."""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mq_jax.algorithm.state import Parts
from mq_jax.data.feed import Feed
from mq_jax.data.sources import Source
from mq_jax.devices import sharding
from mq_jax.devices.agreement import AgreedSignal, together
from mq_jax.devices.interrupt import Interrupt
from mq_jax.evaluation.code_use import codebook_of
from mq_jax.evaluation.evaluate import Evaluator
from mq_jax.images.scale import comparison
from mq_jax.metrics.collections import empty_like, first_nonfinite, scalars
from mq_jax.metrics.measures import Measures
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.cost import write_cost
from mq_jax.runs.snapshot import write_snapshot
from mq_jax.runs.standing import Standing, write_settled
from mq_jax.runs.trees import all_finite
from mq_jax.runs.workdir import flat
from mq_jax.runs.writers import NullWriters, Writers, for_people
from mq_jax.terminal import console
from mq_jax.training.account import (
    cost_of,
    evaluation_in_words,
    log_beginning,
    log_sizes,
    window_in_words,
)
from mq_jax.training.build import build, settled_step
from mq_jax.training.health import Watch
from mq_jax.training.program import compile_program, start
from mq_jax.training.starting import starting_tables

_SPEED = "train/images_per_second"


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

    Returns:
      Why it ended: "finished", "stopped early" or the name of a signal.

    Raises:
      FloatingPointError: a loss, a gradient or a parameter is infinite or not a number.
      OSError: an output could not be written.
      ValueError: too many unreadable images, or no checkpoint that can be restored.
    """
    settled = settled_step(config, steps)
    with together():
        if jax.process_index() == 0:
            write_settled(workdir, settled)
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder, monitor=monitored(config), settled=settled)
    with Interrupt() as interrupt, checkpoints as saved:
        run = _Run(config, steps, settled, sources, eval_source, frozen, measures, saved, workdir)
        resumed = run.restore()
        writers = Writers(workdir, resumed) if jax.process_index() == 0 else NullWriters()
        try:
            return run.loop(writers, interrupt)
        finally:
            writers.close()


class _Run:
    """The arrays of a run, its data and its standing, from the restored step on."""

    def __init__(
        self,
        config: ConfigDict,
        steps: int,
        settled: int,
        sources: Parts,
        eval_source: Source,
        frozen: Any,
        measures: Measures,
        saved: Checkpoints,
        workdir: pathlib.Path,
    ):
        self._config, self._source, self._saved = config, sources.autoencoder, saved
        self._workdir, self._total, self._settled = workdir, steps, settled
        self._standing = Standing()
        warm = round(config.train.warmup * self._total)
        codebook = codebook_of(flat(config.to_dict()))
        self._watch = Watch(codebook, warm, config.train.log_every)
        self._mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
        self._empty_like = jax.jit(empty_like, out_shardings=sharding.replicated(self._mesh))
        self._feed = Feed(config, sources, self._mesh)
        self._built = build(config, self._total, self._mesh)
        log_beginning(config, self._built.problem.objective.autoencoder.downsampling)
        compiling = time.monotonic()
        self._program = compile_program(config, self._built, self._mesh)
        self._compile_seconds = time.monotonic() - compiling
        self._frozen = jax.device_put(frozen, sharding.replicated(self._mesh))
        self._evaluator = Evaluator(
            config, self._built.objective, eval_source, self._mesh, measures
        )
        logging.info(
            "Compiled in %.1f s: %.2f GFLOP a step, %d steps, %d device(s)",
            *(self._compile_seconds, self._program.flops / 1e9),
            *(self._total, jax.device_count()),
        )

    def restore(self) -> int | None:
        """Takes the newest whole checkpoint, or the state before the first step.

        Returns:
          The step of the checkpoint, None without one.
        """
        restored = self._saved.restore(self._program.target)
        if restored is None:
            tables = starting_tables(self._config, self._built, self._source, self._workdir)
            arrays = start(self._config, self._built, self._mesh, tables)
            self._state, self._window, self._step = arrays["state"], arrays["window"], 0
            self._tell()
            return None
        self._state, self._window = restored.tree["state"], restored.tree["window"]
        self._step, self._standing = restored.step, Standing(**restored.extra)
        if "best_step" not in restored.extra:
            best = self._saved.best_step, self._saved.best_value
            self._standing.take_over(*best, counting=self._step >= self._settled)
        self._feed.restore(self._standing.bad_images, self._standing.listing)
        self._tell()
        logging.info("Going on from the checkpoint of step %d", restored.step)
        return restored.step

    def _tell(self):
        """What the step takes and the state holds, in the log and in cost.json."""
        log_sizes(self._state, self._mesh)
        if jax.process_index() == 0:
            flops, seconds = self._program.flops, self._compile_seconds
            cost = cost_of(self._state, self._mesh, flops=flops, compile_seconds=seconds)
            with for_people("cost.json"):
                write_cost(self._workdir, cost)

    def loop(self, writers: Writers | NullWriters, interrupt: Interrupt) -> str:
        """Runs the remaining steps.

        Args:
          writers: where metrics and pictures go.
          interrupt: asks to stop after a step.

        Returns:
          Why it ended.
        """
        if self._saved.latest_step is None:
            writers.write_scalars(0, self._evaluate(writers))
        batches = self._feed.batches(self._step)
        progress = console.Progress(self._total, self._step, live=jax.process_index() == 0)
        self._start_clock()
        loss, signals = None, AgreedSignal()
        try:
            while self._step < self._total and not self._standing.stopped_early:
                if name := signals.after_step(interrupt.signal_name):
                    self._save(writers, None)
                    return name
                # One step behind, so that the host is never more than a batch ahead.
                jax.block_until_ready(loss)
                inner_only = self._program.inner_step and not self._feed.outer_due(self._step)
                step = self._program.inner_step if inner_only else self._program.step
                carried = self._state, self._window
                self._state, self._window, loss = step(*carried, self._frozen, *next(batches))
                taken = self._feed.updates(self._step)
                self._step, self._clocked_steps = self._step + taken, self._clocked_steps + taken
                progress.advance(taken)
                self._report(writers, progress, loss, taken)
        finally:
            progress.close()
            batches.close()
        return "stopped early" if self._standing.stopped_early else "finished"

    def _report(self, writers, progress, loss, taken):
        """What is due after a step of so many updates: metrics, an evaluation, a checkpoint."""
        due = {
            every: self._step % self._config.train[every] < taken or self._step == self._total
            for every in ("log_every", "eval_every", "checkpoint_every")
        }
        row, evaluation = {}, None
        if due["log_every"]:
            self._saved.check()
            row, drawn = self._close_window()
            self._show(progress, row)
            self._warn(row, drawn)
        elif progress.is_early:
            # The loss is there once the step is done, so that its time counts.
            measured = {"inner/loss": float(loss)}
            self._show(progress, measured | {_SPEED: self._images_per_second()})
        if due["eval_every"]:
            evaluation = self._evaluate(writers)
            row |= evaluation
        if row:
            writers.write_scalars(self._step, row)
        if due["eval_every"] or due["checkpoint_every"]:
            self._save(writers, evaluation)
        if any(due.values()):
            self._start_clock()

    def _show(self, progress, row):
        """A report of the progress."""
        left = (self._total - self._step) * self._config.train.batch_size
        progress.report(window_in_words(row), left / row[_SPEED])

    def _warn(self, row, drawn):
        """Says what is wrong with a training, when it begins to be."""
        for sentence in self._watch.begun(self._step, row, drawn):
            if jax.process_index() == 0:
                logging.warning("step %d  %s", self._step, sentence)

    def _close_window(self):
        """The metrics since the last line of the log, and the number of codes that are in them."""
        self._feed.count_bad_images()
        self._require_finite()
        row = scalars(self._window)
        row[_SPEED] = self._images_per_second()
        drawn = int(np.asarray(self._window.inner__usage.counts).sum(dtype=np.int64))
        # Made anew: the step donates it.
        self._window = self._empty_like(self._window)
        return row, drawn

    def _images_per_second(self):
        """Of the inner level, since the clock started."""
        images = self._clocked_steps * self._config.train.batch_size
        return images / (time.monotonic() - self._clock)

    def _evaluate(self, writers):
        """Evaluates, keeps the standing, writes the picture."""
        evaluation = self._evaluator.run(self._state)
        shown = evaluation.originals, evaluation.reconstructions
        writers.write_images(self._step, {"reconstructions": comparison(*shown)})
        value, patience = evaluation.scalars[monitored(self._config)], self._config.train.patience
        limits = {"settled": self._settled, "patience": patience}
        if self._standing.add(self._step, value, **limits) and jax.process_index() == 0:
            with for_people("snapshot.npz"):
                write_snapshot(self._workdir, evaluation.snapshot(self._step))
        logging.info("step %d  eval: %s", self._step, evaluation_in_words(evaluation.scalars))
        return evaluation.scalars

    def _save(self, writers, evaluation):
        """Saves a checkpoint, unless that would poison the run."""
        self._feed.count_bad_images()
        self._require_finite()
        if not all_finite((self._state.params, self._state.batch_stats)):
            raise self._nonfinite(self._step, ["parameters"])
        self._standing.bad_images = self._feed.bad_images
        self._standing.listing = self._feed.listing
        # The lines of the log up to this step must be there whenever the checkpoint is.
        writers.flush()
        tree = {"state": self._state, "window": self._window}
        self._saved.save(self._step, tree, dataclasses.asdict(self._standing), evaluation)

    def _require_finite(self):
        step, terms = first_nonfinite(self._window, self._program.names)
        if terms:
            raise self._nonfinite(step, terms)

    def _nonfinite(self, step, terms):
        """The report of a run that went wrong."""
        self._saved.wait()
        return FloatingPointError(
            f"At step {step} not finite: {', '.join(terms)}. {self._saved.last_good} in "
            f"{self._saved.directory}; nothing later was saved. The "
            "same command would fail again: start another --workdir with a lower "
            "config.train.learning_rate, or with config.inner.clip, config.outer.clip and "
            "config.disc.clip."
        )

    def _start_clock(self):
        """Starts to time the training steps; evaluations and saves are left out."""
        self._clock, self._clocked_steps = time.monotonic(), 0
