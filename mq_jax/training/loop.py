"""The training loop of every stage: restore, iterate, report, save. No mathematics."""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import jax
from absl import logging

from mq_jax.devices import sharding
from mq_jax.devices.agreement import AgreedSignal, together
from mq_jax.devices.interrupt import Interrupt
from mq_jax.metrics.collections import empty_like, first_nonfinite, scalars
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.cost import write_cost
from mq_jax.runs.standing import FIRST, Standing, write_settled
from mq_jax.runs.trees import all_finite
from mq_jax.runs.writers import NullWriters, Writers, for_people
from mq_jax.terminal import console
from mq_jax.training.account import cost_of, evaluation_in_words, log_sizes, window_in_words
from mq_jax.training.stage import Stage

_SPEED = "train/images_per_second"


def run_stage(
    make_stage: Callable[[], Stage], workdir: pathlib.Path, *, monitor: str, settled: int = FIRST
) -> str:
    """Trains until the last step, early stopping or a signal; resumes where it was.

    Args:
      make_stage: builds, and begins to compile; called while a signal waits for the end of a
        step.
      workdir: holds all outputs.
      monitor: the stage's.
      settled: likewise.

    Returns:
      Why it ended: "finished", "stopped early" or the name of a signal.

    Raises:
      FloatingPointError: a loss, a gradient or a parameter is infinite or not a number.
      OSError: an output could not be written.
      ValueError: too many unreadable images, or no checkpoint that can be restored.
    """
    with together():
        if jax.process_index() == 0:
            write_settled(workdir, settled)
    checkpoints = Checkpoints(workdir / "checkpoints", monitor=monitor, settled=settled)
    with Interrupt() as interrupt, checkpoints as saved:
        run = _Run(make_stage(), saved, workdir)
        resumed = run.restore()
        writers = Writers(workdir, resumed) if jax.process_index() == 0 else NullWriters()
        try:
            return run.loop(writers, interrupt)
        finally:
            writers.close()


class _Run:
    """The arrays of a run, its data and its standing, from the restored step on."""

    def __init__(self, stage: Stage, saved: Checkpoints, workdir: pathlib.Path):
        self._stage, self._saved, self._workdir = stage, saved, workdir
        self._config, self._mesh, self._total = stage.config, stage.mesh, stage.steps
        self._feed, self._program = stage.feed, stage.program
        self._standing = Standing()
        self._empty_like = jax.jit(empty_like, out_shardings=sharding.replicated(stage.mesh))

    def restore(self) -> int | None:
        """Takes the newest whole checkpoint, or the state before the first step.

        Returns:
          The step of the checkpoint, None without one.
        """
        restored = self._saved.restore(self._program.target)
        if restored is None:
            arrays = self._stage.start()
            self._state, self._window, self._step = arrays["state"], arrays["window"], 0
            log_sizes(self._state, self._mesh)
            return None
        self._state, self._window = restored.tree["state"], restored.tree["window"]
        self._step, self._standing = restored.step, Standing(**restored.extra)
        if "best_step" not in restored.extra:
            best = self._saved.best_step, self._saved.best_value
            self._standing.take_over(*best, counting=self._step >= self._stage.settled)
        self._feed.restore(self._standing.bad_images, self._standing.listing)
        log_sizes(self._state, self._mesh)
        logging.info("Going on from the checkpoint of step %d", restored.step)
        return restored.step

    def _await_steps(self):
        """Waits until the steps are compiled; what one takes, in the log and in cost.json."""
        steps = self._program.steps()
        logging.info(
            "Compiled in %.1f s: %.2f GFLOP a step, %d steps, %d device(s)",
            *(steps.compile_seconds, steps.flops / 1e9, self._total, jax.device_count()),
        )
        if jax.process_index() == 0:
            cost = cost_of(self._state, self._mesh, steps)
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
            # Beside the compilation, where that goes on.
            writers.write_scalars(0, self._evaluate(writers))
        self._await_steps()
        batches = self._feed.batches(self._step)
        progress = console.Progress(self._total, self._step, live=jax.process_index() == 0)
        self._start_clock()
        before_last = last = None
        signals = AgreedSignal()
        try:
            while self._step < self._total and not self._standing.stopped_early:
                if name := signals.after_step(interrupt.signal_name):
                    self._save(writers, None)
                    return name
                # The last step runs meanwhile; a host further ahead would fill the device's memory.
                jax.block_until_ready(before_last)
                step, taken = self._stage.step_at(self._step)
                given = self._stage.frozen, *next(batches)
                before_last = last
                self._state, self._window, last = step(self._state, self._window, *given)
                self._step, self._clocked_steps = self._step + taken, self._clocked_steps + taken
                progress.advance(taken)
                self._report(writers, progress, last, taken)
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
            row, ailing = self._close_window()
            self._show(progress, row)
            for sentence in ailing if jax.process_index() == 0 else ():
                logging.warning("step %d  %s", self._step, sentence)
        elif progress.is_early:
            # The loss is there once the step is done, so that its time counts.
            measured = {self._stage.loss: float(loss)}
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
        progress.report(window_in_words(row, self._stage.loss), left / row[_SPEED])

    def _close_window(self):
        """The metrics since the last line of the log, and what begins to be wrong with them."""
        self._feed.count_bad_images()
        self._require_finite()
        row = scalars(self._window)
        row[_SPEED] = self._images_per_second()
        ailing = self._stage.begun(self._step, row, self._window)
        # Made anew: the step donates it.
        self._window = self._empty_like(self._window)
        return row, ailing

    def _images_per_second(self):
        """Of one level, since the clock started."""
        images = self._clocked_steps * self._config.train.batch_size
        return images / (time.monotonic() - self._clock)

    def _evaluate(self, writers):
        """Evaluates, keeps the standing, writes the pictures."""
        seen = self._stage.evaluate(self._state, self._step)
        writers.write_images(self._step, seen.pictures)
        value, patience = seen.scalars[self._stage.monitor], self._config.train.patience
        limits = {"settled": self._stage.settled, "patience": patience}
        best = self._standing.add(self._step, value, **limits)
        if best and seen.keep is not None and jax.process_index() == 0:
            seen.keep(self._workdir)
        logging.info("step %d  eval: %s", self._step, evaluation_in_words(seen.scalars))
        return seen.scalars

    def _save(self, writers, evaluation):
        """Saves a checkpoint, unless that would poison the run."""
        self._feed.count_bad_images()
        self._require_finite()
        if not all_finite(self._state.learned):
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
            f"config.train.learning_rate, or with {self._stage.remedy}."
        )

    def _start_clock(self):
        """Starts to time the training steps; evaluations and saves are left out."""
        self._clock, self._clocked_steps = time.monotonic(), 0
