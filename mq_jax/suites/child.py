"""One run in a process of its own: memory that is given back, failures that stay there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from mq_jax.devices.interrupt import Interrupt
from mq_jax.suites import outcome
from mq_jax.suites.outcome import Ending, read_ending, write_ending
from mq_jax.suites.schedule import Scheduled

PROGRAM = (sys.executable, "-m", "mq_jax.main")

# Of a run that a signal ended and that can go on.
INTERRUPTED = 75

LOG = "console.log"
_POLL_SECONDS = 0.2
# After a second signal, for what a process may still do.
_LAST_SECONDS = 10


def train(scheduled: Scheduled, interrupt: Interrupt, program: Sequence[str] = PROGRAM) -> Ending:
    """Trains a run to its end, or as far as a signal lets it; what it says goes to `console.log`.

    Args:
      scheduled: the run, with its number of steps.
      interrupt: a signal to this process is handed on, once: the run saves and ends.
      program: the command before the arguments.

    Returns:
      What `outcome.json` now says, exit code INTERRUPTED for a run that can go on.

    Raises:
      KeyboardInterrupt: a second signal came; the process was ended at once.
      OSError: the folder cannot be written to, or the program is not there.
    """
    folder = scheduled.folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [*program, *scheduled.words, f"--workdir={folder}"]
    log, before, begin = folder / LOG, read_ending(folder), time.monotonic()
    with open(log, "ab") as stream:
        start = stream.tell()
        code = _run([*command, f"--interrupted_code={INTERRUPTED}"], stream, interrupt)
    failed = code not in (0, INTERRUPTED)
    ending = Ending(
        code,
        outcome.last_step(folder),
        1 + (before.starts if before else 0),
        round(time.monotonic() - begin + (before.seconds if before else 0.0), 3),
        (outcome.error_in(log, start) or f"exit code {code}") if failed else "",
    )
    # The folder may be another process's by now, which is why this one failed.
    if not (failed and outcome.is_taken(folder)):
        write_ending(folder, ending)
    return ending


def _run(command: Sequence[str], stream, interrupt: Interrupt) -> int:
    """The exit code of a command; negative for the signal that killed it."""
    # In a session of its own: a terminal's Ctrl-C would reach it beside the one handed on, and a
    # second one ends it without saving.
    child = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=stream,
        start_new_session=True,
    )
    told = False
    try:
        while True:
            try:
                return child.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if interrupt.requested and not told:
                    told = True
                    child.send_signal(signal.SIGTERM)
    finally:
        if child.poll() is None:
            _end(child)


def _end(child: subprocess.Popen) -> None:
    """Ends a process and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(_LAST_SECONDS)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
