"""The training loop of every stage: restore, iterate, report, save. No mathematics."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable

import jax
from absl import logging

from mq_jax.devices.agreement import AgreedSignal, together
from mq_jax.devices.interrupt import Interrupt
from mq_jax.metrics.collections import computed, fetched, first_nonfinite, named
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.cost import write_cost
from mq_jax.runs.saving import Saver
from mq_jax.runs.standing import FIRST, Standing, write_settled
from mq_jax.runs.trees import all_finite, copied
from mq_jax.runs.writers import NullWriters, Writers, for_people
from mq_jax.terminal import console
from mq_jax.training.account import cost_of, evaluation_in_words, log_sizes, window_in_words
from mq_jax.training.ahead import Ahead
from mq_jax.training.pace import SPEED, Pace
from mq_jax.training.stage import Stage


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
        # The lines of the log up to its step must be there whenever a checkpoint is.
        with contextlib.closing(writers), Saver(saved, writers.flush) as saver:
            return run.loop(writers, saver, interrupt)


class _Run:
    """The arrays of a run, its data and its standing, from the restored step on.

    What a line of the log or a checkpoint takes is set apart on the devices before they are given
    the next step, and read once the step is done: the loop waits for that anyway.
    """

    def __init__(self, stage: Stage, saved: Checkpoints, workdir: pathlib.Path):
        self._stage, self._saved, self._workdir = stage, saved, workdir
        self._config, self._mesh, self._total = stage.config, stage.mesh, stage.steps
        self._feed, self._program = stage.feed, stage.program
        self._standing = Standing()
        self._pace = Pace(stage.config.train.batch_size)

    def restore(self) -> int | None:
        """Takes the newest whole checkpoint, or the state before the first step.

        Returns:
          The step of the checkpoint, None without one.
        """
        if self._saved.latest_step is None:
            # Beside the trace of the steps, where that goes on.
            self._state, self._step = self._stage.start(), 0
            log_sizes(self._state, self._mesh)
            self._window = self._program.traced().new_window()
            return None
        restored = self._saved.restore(self._program.traced().target)
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

    def loop(self, writers: Writers | NullWriters, saver: Saver, interrupt: Interrupt) -> str:
        """Runs the remaining steps.

        Args:
          writers: where metrics and pictures go.
          saver: of the checkpoints.
          interrupt: asks to stop after a step.

        Returns:
          Why it ended.
        """
        self._writers, self._saver = writers, saver
        if self._saved.latest_step is None:
            # Beside the compilation, where that goes on.
            writers.write_scalars(0, self._evaluate())
        self._await_steps()
        batches = self._feed.batches(self._step)
        live = jax.process_index() == 0
        self._progress = console.Progress(self._total, self._step, live=live)
        self._pace.start(self._step)
        self._ahead = Ahead(self._step, self._pace)
        try:
            return self._iterate(batches, interrupt)
        except Exception:
            # A checkpoint that was due before is none the less good. Several processes have
            # handed theirs over; where one of them is lost, their steps never end.
            if jax.process_count() == 1:
                self._ahead.finish()
            raise
        finally:
            self._progress.close()
            batches.close()

    def _iterate(self, batches, interrupt):
        """The steps; why they ended."""
        signals = AgreedSignal()
        while self._step < self._total and not self._standing.stopped_early:
            if name := signals.after_step(interrupt.signal_name):
                self._save(None)
                self._ahead.finish()
                return name
            self._ahead.make_room()
            step, taken = self._stage.step_at(self._step)
            with self._pace.waiting():
                given = self._stage.frozen, *next(batches)
            self._state, self._window, loss = step(self._state, self._window, *given)
            self._step += taken
            self._progress.advance(taken)
            self._ahead.give(self._step, loss)
            self._report(loss, taken)
        return "stopped early" if self._standing.stopped_early else "finished"

    def _report(self, loss, taken):
        """What is due after a step of so many updates: metrics, an evaluation, a checkpoint."""
        due = {
            every: self._step % self._config.train[every] < taken or self._step == self._total
            for every in ("log_every", "eval_every", "checkpoint_every")
        }
        closed = None
        if due["log_every"]:
            self._saver.check()
            closed = self._close_window()
        elif self._progress.is_early:
            self._ahead.follow(self._show_early, fetched(loss))
        if due["eval_every"]:
            self._ahead.finish()
            row = self._read_window(self._step, *closed) if closed else {}
            evaluation = self._evaluate()
            self._writers.write_scalars(self._step, row | evaluation)
            self._save(evaluation)
            self._pace.start(self._step)
            return
        if closed:
            self._ahead.follow(self._write_line, *closed)
        if due["checkpoint_every"]:
            self._save(None)

    def _close_window(self):
        """The window since the last line of the log, and its metrics on their way to the host."""
        self._feed.count_bad_images()
        window = self._window
        # Another one: the step donates it.
        self._window = self._program.traced().new_window()
        return fetched(window), fetched(computed(window))

    def _write_line(self, step, *closed):
        """A line of the log."""
        self._writers.write_scalars(step, self._read_window(step, *closed))

    def _read_window(self, step, window, values):
        """The metrics of a window; tells of them, and what begins to be wrong."""
        self._require_finite(window)
        row = named(values) | self._pace.read()
        ailing = self._stage.begun(step, row, window)
        self._show(step, row)
        for sentence in ailing if jax.process_index() == 0 else ():
            logging.warning("step %d  %s", step, sentence)
        return row

    def _show_early(self, step, loss):
        """A report before the first line of the log."""
        self._show(step, {self._stage.loss: float(loss), SPEED: self._pace.images_per_second})

    def _show(self, step, row):
        """A report of the progress."""
        left = (self._total - step) * self._config.train.batch_size / row[SPEED]
        self._progress.report(step, window_in_words(row, self._stage.loss), left)

    def _evaluate(self):
        """Evaluates, keeps the standing, writes the pictures."""
        seen = self._stage.evaluate(self._state, self._step)
        self._writers.write_images(self._step, seen.pictures)
        value, patience = seen.scalars[self._stage.monitor], self._config.train.patience
        limits = {"settled": self._stage.settled, "patience": patience}
        best = self._standing.add(self._step, value, **limits)
        if best and seen.keep is not None and jax.process_index() == 0:
            seen.keep(self._workdir)
        logging.info("step %d  eval: %s", self._step, evaluation_in_words(seen.scalars))
        return seen.scalars

    def _save(self, evaluation):
        """Copies what a checkpoint holds; it is written once the step is done."""
        self._feed.count_bad_images()
        # One copy at a time: a further one might be too much for the devices' memory. So a save
        # waits for the one before, which none but a very slow disk has not written by then.
        if self._ahead.is_due(self._hand_over):
            self._ahead.finish()
        self._saver.wait()
        self._standing.bad_images = self._feed.bad_images
        self._standing.listing = self._feed.listing
        copy = copied({"state": self._state, "window": self._window})
        finite = all_finite(copy["state"].learned)
        fetched((finite, copy["window"].first_nonfinite))
        extra = dataclasses.asdict(self._standing)
        self._ahead.follow(self._hand_over, copy, finite, extra, evaluation)
        if evaluation is not None or jax.process_count() > 1:
            # The devices are idle anyway, or will be, as no thread writes.
            self._ahead.finish()

    def _hand_over(self, step, copy, finite, extra, evaluation):
        """Begins to write a checkpoint, unless that would poison the run."""
        self._require_finite(copy["window"])
        if not finite:
            raise self._nonfinite(step, ["parameters"])
        self._saver.save(step, copy, extra, evaluation)

    def _require_finite(self, window):
        step, terms = first_nonfinite(window, self._program.traced().names)
        if terms:
            raise self._nonfinite(step, terms)

    def _nonfinite(self, step, terms):
        """The report of a run that went wrong."""
        self._saver.wait()
        return FloatingPointError(
            f"At step {step} not finite: {', '.join(terms)}. {self._saved.last_good} in "
            f"{self._saved.directory}; nothing later was saved. The "
            "same command would fail again: start another --workdir with a lower "
            f"config.train.learning_rate, or with {self._stage.remedy}."
        )
