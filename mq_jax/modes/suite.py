"""--mode=compare: trains the runs of a suite, and writes tables and a page over them.

Not `--mode=evaluate --compare` (comparing.py), which prints evaluations that are there.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from mq_jax.devices.distributed import find_cluster
from mq_jax.devices.interrupt import Interrupt
from mq_jax.planning.plan import make_plan, use_virtual_devices
from mq_jax.runs.workdir import require_writable
from mq_jax.suites.outcome import DIFFERS, FAILED, Outcome, outcome_of
from mq_jax.suites.page import write_comparison
from mq_jax.suites.prediction import predictions, predictions_table
from mq_jax.suites.results import read_results, write_suite
from mq_jax.suites.running import run_suite
from mq_jax.suites.schedule import Scheduled, Shard, find_shard, schedule
from mq_jax.suites.suite import Suite, read_suite
from mq_jax.suites.tables import differences_tables, entries_table
from mq_jax.suites.timing import timed
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell


def compare_runs(folder: pathlib.Path, reference: str) -> None:
    """Writes the tables over the runs that are below a folder.

    Args:
      folder: of a suite, its runs ENTRY/seed-S.
      reference: the entry that others are compared with; "": as the folder says, or the first.

    Raises:
      FileNotFoundError: it has no run.
      ValueError: the reference is none of the entries.
      OSError: a table cannot be written.
    """
    _write(folder, reference, {})


def predict_suite(
    path: str, folder: pathlib.Path, *, given: Sequence[str], shard: str, count_flops: bool
) -> None:
    """Prints what a suite would run, and for how long; writes nothing.

    Args:
      path: as run_suite_of's.
      folder: likewise.
      given: likewise.
      shard: likewise.
      count_flops: whether entries that were not measured are predicted by their FLOPs, for which
        each is traced.

    Raises:
      ValueError: as run_suite_of.
    """
    suite, runs, part = _scheduled(path, folder, given, shard)
    lasting = [timed(one, suite, folder) or one for one in part.of(runs)]
    try:
        measured = read_results(folder).runs
    except FileNotFoundError:
        measured = []
    found = predictions(lasting, measured, suite.seconds, _flops if count_flops else None)
    console.print_table(f"Would be run in {folder}", *predictions_table(found))


def run_suite_of(
    path: str, folder: pathlib.Path, *, given: Sequence[str], shard: str, reference: str
) -> tuple[int, str]:
    """Trains what a suite lacks, then writes the tables.

    Args:
      path: of the suite's file.
      folder: of its runs.
      given: further `--config.NAME=VALUE` words for every run.
      shard: as find_shard's.
      reference: as compare_runs'.

    Returns:
      The number of runs that failed or are of another configuration, and the name of the signal
      that ended it, "" without one.

    Raises:
      ValueError: the suite, an entry or the shard is not right, or several processes are one.
      OSError: the folder cannot be written to.
    """
    suite, runs, part = _scheduled(path, folder, given, shard)
    own, name = part.of(runs), pathlib.Path(path).stem
    require_writable(folder)
    write_suite(folder, name, suite)
    whole = f"{len(own)} of {len(runs)}" if part.count > 1 else str(len(runs))
    logging.info("Suite %s: %s runs in %s", name, whole, folder)
    with Interrupt() as interrupt:
        outcomes = run_suite(own, suite, folder, interrupt)
    others = _others([one for one in runs if one.name not in outcomes], suite, folder)
    _write(folder, reference, {**others, **outcomes})
    bad = [name for name, found in outcomes.items() if found.state in (FAILED, DIFFERS)]
    for name in bad:
        logging.error("error: %s: %s: %s", name, outcomes[name].state, outcomes[name].told)
    return len(bad), interrupt.signal_name or ""


def _scheduled(
    path: str, folder: pathlib.Path, given: Sequence[str], shard: str
) -> tuple[Suite, list[Scheduled], Shard]:
    """The suite, all its runs, and which of them are this process's."""
    if find_cluster(os.environ):
        raise ValueError(
            "--mode=compare is one process that starts its runs; the environment makes it one of "
            "several that are one run. Give each --shard=I/N and none of their variables."
        )
    suite = read_suite(path)
    return suite, schedule(suite, folder, given), find_shard(shard, os.environ)


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
    # FLOPs are in the files: a terminal has no room for them.
    entries, *differences = entries_table(results), *differences_tables(results)
    entries = entries._replace(heads=entries.heads[:-2], rows=[row[:-2] for row in entries.rows])
    for table in (entries, *differences):
        cells = [[cell.text for cell in row] for row in table.rows]
        console.print_table(table.title, table.heads, cells)
    for name, told in results.ailments:
        tell(f"{name}: {told}")
    tell(*(f"Comparison: {path}" for path in write_comparison(results, folder)))


def _flops(config: ConfigDict) -> float:
    """Matrix FLOPs of a step; traced, not compiled."""
    use_virtual_devices(1)
    return make_plan(config, 1, compiled=False).matrix_flops
