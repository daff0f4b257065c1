"""--mode=compare: trains the runs of a suite, and writes tables and a page over them.

Not `--mode=evaluate --compare` (comparing.py), which prints evaluations that are there.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from absl import logging

from mq_jax.devices.distributed import find_cluster
from mq_jax.devices.interrupt import Interrupt
from mq_jax.modes.predicting import predict
from mq_jax.runs.workdir import require_writable
from mq_jax.suites.machines import hours, unlike_machines
from mq_jax.suites.outcome import DIFFERS, FAILED, Outcome, outcome_of
from mq_jax.suites.page import write_comparison
from mq_jax.suites.results import read_results, write_suite
from mq_jax.suites.running import run_suite
from mq_jax.suites.schedule import Scheduled, Shard, find_shard, schedule
from mq_jax.suites.suite import Suite, read_suite
from mq_jax.suites.tables import differences_tables, entries_table
from mq_jax.suites.timing import timed
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell


class Asked(NamedTuple):
    """What a command line asks for.

    Attributes:
      suite: path of its file; "": tables over the runs that are there.
      given: `--config.NAME=VALUE` words for every run, after the entries' own.
      shard: as find_shard's.
      reference: the entry that others are compared with; "": as the suite says, or the first.
        Where a suite's has no run yet, the first that has.
      dry: whether only to print what would be run, and for how long.
      count_flops: whether entries that were not measured are predicted by their FLOPs then, for
        which each is traced.
      images: of which epochs are then; 0: as many as the data declares.
    """

    suite: str
    given: Sequence[str] = ()
    shard: str = ""
    reference: str = ""
    dry: bool = False
    count_flops: bool = False
    images: int = 0


def compare(folder: pathlib.Path, asked: Asked) -> tuple[int, str]:
    """Trains what a suite lacks, then writes the tables over all that is there.

    Args:
      folder: of the suite, its runs ENTRY/seed-S.
      asked: a dry run writes nothing.

    Returns:
      The number of runs that failed or are of another configuration, and the name of the signal
      that ended it, "" without one.

    Raises:
      FileNotFoundError: without a suite, there is no run.
      ValueError: the suite, an entry, the shard or the reference is not right, something is asked
        for that needs a suite, or several processes are to be one.
      OSError: the folder cannot be written to.
    """
    predicting = {"count_flops": asked.count_flops, "images": asked.images}
    given = {"dry_run": asked.dry, **predicting, "shard": asked.shard}
    of_a_suite = [name for name, value in given.items() if value]
    if of_a_suite and not asked.suite:
        raise ValueError(f"--{of_a_suite[0]} is of a suite; give --suite too.")
    for name in (name for name, value in predicting.items() if value and not asked.dry):
        raise ValueError(f"--{name} is of --dry_run; give that too.")
    if not asked.suite:
        _write(folder, asked.reference, {})
        return 0, ""
    if find_cluster(os.environ):
        raise ValueError(
            "--mode=compare is one process that starts its runs; the environment makes it one of "
            "several that are one run. Give each --shard=I/N and none of their variables."
        )
    suite, part = _suite(asked), find_shard(asked.shard, os.environ)
    runs = schedule(suite, folder, asked.given)
    if asked.dry:
        given = {"images": asked.images, "count_flops": asked.count_flops}
        predict(runs, part, suite, folder, **given)
        return 0, ""
    return _run(runs, part, suite, folder, asked)


def _suite(asked: Asked) -> Suite:
    """The suite, with the reference that is asked for."""
    suite = read_suite(asked.suite)
    if not asked.reference:
        return suite
    # Before the runs, which take hours; one that has no run yet is no reason to fail after them.
    if asked.reference not in suite.entries:
        raise ValueError(
            f"--reference is {asked.reference!r}; expected one of {', '.join(suite.entries)}, the "
            f"entries of --suite={asked.suite}."
        )
    return dataclasses.replace(suite, reference=asked.reference)


def _run(
    runs: Sequence[Scheduled], part: Shard, suite: Suite, folder: pathlib.Path, asked: Asked
) -> tuple[int, str]:
    """Trains a part of the runs; returns as compare."""
    own, name = part.of(runs), pathlib.Path(asked.suite).stem
    require_writable(folder)
    write_suite(folder, name, suite)
    whole = f"{len(own)} of {len(runs)}" if part.count > 1 else str(len(runs))
    logging.info("Suite %s: %s runs in %s", name, whole, folder)
    with Interrupt() as interrupt:
        outcomes = run_suite(own, suite, folder, interrupt)
    others = _others([one for one in runs if one.name not in outcomes], suite, folder)
    _write(folder, "", {**others, **outcomes})
    bad = [one for one, found in outcomes.items() if found.state in (FAILED, DIFFERS)]
    for one in bad:
        logging.error("error: %s: %s: %s", one, outcomes[one].state, outcomes[one].told)
    return len(bad), interrupt.signal_name or ""


def _others(runs: Sequence[Scheduled], suite: Suite, folder: pathlib.Path) -> dict[str, Outcome]:
    """Which runs of other shards, or that were not come to, are of another configuration."""
    found = {}
    for scheduled in runs:
        try:
            lasting = timed(scheduled, suite, folder)
            found[scheduled.name] = outcome_of(lasting) if lasting else Outcome("")
        except (ValueError, OSError) as error:
            found[scheduled.name] = Outcome(FAILED, str(error))
    return {name: outcome for name, outcome in found.items() if outcome.state == DIFFERS}


def _write(folder: pathlib.Path, reference: str, outcomes: dict[str, Outcome]) -> None:
    """Tables on the terminal and in files; nothing where there is no run yet."""
    try:
        results = read_results(folder, reference, outcomes)
    except FileNotFoundError as error:
        if not outcomes:
            raise
        logging.warning("%s", error)
        return
    # FLOPs and hours are in the files: a terminal has no room for them.
    entries, *differences = entries_table(results), *differences_tables(results)
    entries = entries._replace(heads=entries.heads[:-3], rows=[row[:-3] for row in entries.rows])
    for table in (entries, *differences):
        cells = [[cell.text for cell in row] for row in table.rows]
        console.print_table(table.title, table.heads, cells)
    took = hours(results)
    tell(*filter(None, (unlike_machines(results), f"Hours of all runs: {took}" if took else "")))
    for name, told in results.ailments:
        tell(f"{name}: {told}")
    tell(*(f"Comparison: {path}" for path in write_comparison(results, folder)))
