"""The runs of a suite, one after the other; none that fails stops the others."""

import pathlib
from collections.abc import Sequence

from absl import logging

from mq_jax.devices.interrupt import Interrupt
from mq_jax.suites import child
from mq_jax.suites.outcome import (
    DIFFERS,
    FAILED,
    FINISHED,
    TAKEN,
    UNFINISHED,
    Outcome,
    outcome_of,
)
from mq_jax.suites.schedule import Scheduled
from mq_jax.suites.suite import Suite
from mq_jax.suites.timing import take_time, timed

# With these a run is left as it is.
_LEFT = (FINISHED, DIFFERS, TAKEN)


def run_suite(
    runs: Sequence[Scheduled],
    suite: Suite,
    folder: pathlib.Path,
    interrupt: Interrupt,
    program: Sequence[str] = child.PROGRAM,
) -> dict[str, Outcome]:
    """Trains what is not finished, in order.

    Args:
      runs: of this process, from schedule.
      suite: of which they are.
      folder: of the suite.
      interrupt: a signal ends the run that trains in order, and starts no further one.
      program: as child.train's.

    Returns:
      How each run stands now, by its name; those after a signal are left out.
    """
    outcomes = {}
    for number, scheduled in enumerate(runs, start=1):
        if interrupt.requested:
            break
        told = f"[{number}/{len(runs)}] {scheduled.name}"
        try:
            outcomes[scheduled.name] = _run(told, scheduled, suite, folder, interrupt, program)
        # A folder that is damaged or cannot be written; the next one may be well.
        except (ValueError, OSError) as error:
            outcomes[scheduled.name] = Outcome(FAILED, str(error))
        _tell(told, outcomes[scheduled.name])
    return outcomes


def _run(told, scheduled, suite, folder, interrupt, program) -> Outcome:
    """One run, from where it stands to where it comes."""
    lasting = timed(scheduled, suite, folder)
    if lasting is None:
        logging.info("%s: timing its step", told)
        lasting, failure = take_time(scheduled, suite, folder, interrupt, program)
        if lasting is None:
            return failure if failure.state else Outcome(UNFINISHED, "its step is not timed yet")
    before = outcome_of(lasting)
    if before.state in _LEFT:
        return before._replace(told=before.told or "as it was found")
    steps = lasting.config.train.steps
    length = f"{steps:,} steps" if steps else f"{lasting.config.train.epochs} epochs"
    logging.info("%s: %s, %s; log: %s", told, before.state, length, lasting.folder / child.LOG)
    ending = child.train(lasting, interrupt, program)
    if ending.exit_code == 0:
        return Outcome(FINISHED, f"step {ending.step:,}, {ending.seconds / 60:.1f} min in all")
    return outcome_of(lasting)


def _tell(told: str, found: Outcome) -> None:
    """A line of the log on a run that was looked at."""
    log = logging.error if found.state in (FAILED, DIFFERS) else logging.info
    log("%s: %s%s", told, found.state, f" ({found.told})" if found.told else "")
