"""A budget of seconds: the step of an entry is timed once, in a run of its own, and kept.

`DIR/timings/ENTRY` is that run, a folder as any other: its config.json, environment.json and
metrics.jsonl are the record, so whoever comes later counts the same steps.
"""

import pathlib
import time
from collections.abc import Sequence

from mq_jax.devices.interrupt import Interrupt
from mq_jax.report.durations import seconds_per_step
from mq_jax.runs.writers import read_metrics
from mq_jax.suites import child
from mq_jax.suites.outcome import (
    DIFFERS,
    FAILED,
    FINISHED,
    TAKEN,
    Outcome,
    outcome_of,
)
from mq_jax.suites.schedule import Scheduled
from mq_jax.suites.suite import RESERVED, Suite

# Lines of the log of a timing; the first has what only a start costs.
_WINDOWS = 6
_WAIT_SECONDS = 2.0


def timing_of(scheduled: Scheduled, suite: Suite, folder: pathlib.Path) -> Scheduled:
    """The run that times a step of an entry.

    Args:
      scheduled: any run of the entry.
      suite: of seconds.
      folder: of the suite.

    Returns:
      A run of few steps.
    """
    steps = suite.timing_steps
    # One evaluation, which no run is without.
    rarely = dict.fromkeys(("eval_every", "checkpoint_every"), steps)
    place = folder / RESERVED[0] / scheduled.entry
    timing = scheduled.lasting(steps, place, log_every=max(steps // _WINDOWS, 1), **rarely)
    # One seed, whichever run asks first.
    timing.config.seed = 0
    return timing._replace(seed=0, words=(*timing.words, "--config.seed=0"))


def timed(scheduled: Scheduled, suite: Suite, folder: pathlib.Path) -> Scheduled | None:
    """A run with the steps of its budget.

    Args:
      scheduled: without a number of steps where the suite counts seconds.
      suite: of which it is.
      folder: of the suite.

    Returns:
      The run; None where its step is not timed yet.

    Raises:
      ValueError: the timing that is there is of another configuration, or has lost its lines.
    """
    if not suite.seconds:
        return scheduled
    timing = timing_of(scheduled, suite, folder)
    found = outcome_of(timing)
    if found.state == DIFFERS:
        raise ValueError(f"The timing of {scheduled.entry!r} is of another run: {found.told}.")
    if found.state != FINISHED:
        return None
    rows = read_metrics(timing.folder / "metrics.jsonl")
    seconds = seconds_per_step(rows, timing.config.train.batch_size, without_first=True)
    if seconds is None:
        raise ValueError(f"{timing.folder} has no rate of its steps; remove it, to time them anew.")
    return scheduled.lasting(max(round(suite.seconds / seconds), 1), scheduled.folder)


def take_time(
    scheduled: Scheduled,
    suite: Suite,
    folder: pathlib.Path,
    interrupt: Interrupt,
    program: Sequence[str] = child.PROGRAM,
) -> tuple[Scheduled | None, Outcome]:
    """Times the step of an entry, or waits for another process that does.

    Args:
      scheduled: as timed's.
      suite: as timed's.
      folder: as timed's.
      interrupt: ends the wait, too.
      program: as child.train's.

    Returns:
      The run with its steps and an empty Outcome; None and why it has none otherwise.

    Raises:
      ValueError: as timed.
    """
    timing = timing_of(scheduled, suite, folder)
    while (found := timed(scheduled, suite, folder)) is None and not interrupt.requested:
        if outcome_of(timing).state == TAKEN:
            time.sleep(_WAIT_SECONDS)
            continue
        ending = child.train(timing, interrupt, program)
        if ending.exit_code not in (0, child.INTERRUPTED):
            return None, Outcome(FAILED, f"its step could not be timed: {ending.error}")
    return found, Outcome("")
