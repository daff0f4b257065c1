"""How far a run of a suite has come, as its folder tells; and what its processes ended with."""

import json
import pathlib
from typing import NamedTuple

from mq_jax.runs.differing import FREE_FIELDS, shown, unequal_fields
from mq_jax.runs.records import write_record
from mq_jax.runs.workdir import flat, read_config
from mq_jax.runs.writers import read_metrics
from mq_jax.storage.lock import held
from mq_jax.storage.schema import AMOUNT, TEXT, read_json, whole
from mq_jax.suites.schedule import Scheduled
from mq_jax.terminal.escaping import visible

FILE = "outcome.json"

ABSENT, UNFINISHED, FINISHED = "not begun", "unfinished", "finished"
FAILED, DIFFERS, TAKEN = "failed", "of another configuration", "written by another process"

# What is logged and shown, of which no result depends.
_IMMATERIAL = (
    *FREE_FIELDS,
    *("train.log_every", "train.checkpoint_every", "eval.pictures", "eval.batch_size"),
)

_SCHEMA = {
    "exit_code": whole(-64, 255),
    "step": whole(0),
    "starts": whole(1),
    "seconds": AMOUNT,
    "error": TEXT,
}


class Ending(NamedTuple):
    """What the processes of a run ended with, in `outcome.json` of its folder.

    Attributes:
      exit_code: of the last one; 0: nothing is left to do.
      step: of the last line of metrics.jsonl then.
      starts: number of processes so far.
      seconds: that they took together, compilation and evaluations included.
      error: the last one's own words; "" where it did not fail.
    """

    exit_code: int
    step: int
    starts: int
    seconds: float
    error: str


class Outcome(NamedTuple):
    """How a run stands.

    Attributes:
      state: one of this module's.
      told: what a person should know; may be "".
    """

    state: str
    told: str = ""


def write_ending(folder: pathlib.Path, ending: Ending) -> None:
    """Writes `outcome.json`.

    Args:
      folder: of the run; exists.
      ending: replaces the one that is there.
    """
    write_record(folder / FILE, ending)


def read_ending(folder: pathlib.Path) -> Ending | None:
    """Reads `outcome.json`.

    Args:
      folder: of a run.

    Returns:
      An Ending; None where there is none that can be read: the run itself says what it lacks.
    """
    try:
        stored = read_json(folder / FILE, _SCHEMA)
    except (OSError, ValueError):
        return None
    return Ending(*(stored[name] for name in Ending._fields))


def outcome_of(scheduled: Scheduled) -> Outcome:
    """How a run of a suite stands.

    Args:
      scheduled: the run, with its number of steps.

    Returns:
      An Outcome; DIFFERS comes before all else, since such a folder is of another run.

    Raises:
      ValueError: a config.json is damaged.
    """
    folder = scheduled.folder
    if not (folder / "config.json").is_file():
        ending = read_ending(folder)
        failed = ending is not None and ending.exit_code
        return Outcome(FAILED, ending.error) if failed else Outcome(ABSENT)
    fields = differing_fields(scheduled)
    if fields:
        told = "; ".join(
            f"{name}: {shown(there)} there, {shown(here)} in the suite"
            for name, (there, here) in fields.items()
        )
        return Outcome(DIFFERS, f"{told}; move {folder} away, or change the suite")
    if is_taken(folder):
        return Outcome(TAKEN)
    return outcome_in(folder, scheduled.config.train.steps)


def outcome_in(folder: pathlib.Path, steps: int) -> Outcome:
    """How the run in a folder stands, by its files alone.

    Args:
      folder: with a config.json.
      steps: of the run; 0: not known, as where epochs make them.

    Returns:
      FINISHED, FAILED or UNFINISHED.
    """
    last, ending = last_step(folder), read_ending(folder)
    if steps and last >= steps:
        return Outcome(FINISHED)
    if ending is not None and ending.step == last:
        if ending.exit_code == 0:
            return Outcome(FINISHED)
        if ending.error:
            return Outcome(FAILED, ending.error)
    return Outcome(UNFINISHED, f"step {last:,}" + (f" of {steps:,}" if steps else ""))


def last_step(folder: pathlib.Path) -> int:
    """The step of the last line of metrics.jsonl; 0 where there is none."""
    try:
        rows = read_metrics(folder / "metrics.jsonl")
    except OSError:
        return 0
    return rows[-1]["step"] if rows else 0


def differing_fields(scheduled: Scheduled) -> dict[str, list]:
    """The fields in which a folder's run is another one than the suite's.

    Args:
      scheduled: whose folder has a config.json; what an older one lacks is what was done then.

    Returns:
      [there, in the suite] by dotted name; fields that change no result are left out.
    """
    stored = flat(read_config(scheduled.folder))
    here = flat(json.loads(json.dumps(scheduled.config.to_dict())))
    return {
        name: values
        for name, values in sorted(unequal_fields([stored, here]).items())
        if not any(name == free or name.startswith(f"{free}.") for free in _IMMATERIAL)
    }


def is_taken(folder: pathlib.Path) -> bool:
    """Whether another process writes into a folder."""
    try:
        with held(folder, "wait"):
            return False
    except ValueError:
        return True


def error_in(log: pathlib.Path, start: int = 0) -> str:
    """What a process that failed said last.

    Args:
      log: of its standard error.
      start: bytes that earlier processes left there.

    Returns:
      One line; "" where it said nothing.
    """
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return visible((errors or lines or [""])[-1].strip().removeprefix("error: "))[:2000]
