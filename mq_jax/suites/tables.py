"""Tables over the runs of a suite: each entry, its difference from the reference, each run."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence

from mq_jax.report.names import METRICS, number
from mq_jax.report.tables import Cell, Table
from mq_jax.runs.differing import differing_fields, shown, unequal_fields
from mq_jax.suites.machines import hours, unlike_machines
from mq_jax.suites.results import ERRORS, Results
from mq_jax.suites.statistics import (
    DIFFERENCE,
    LEVEL,
    POWER,
    Paired,
    Spread,
    paired,
    spread,
)
from mq_jax.terminal.escaping import visible

_NONE = "–"
_FEWEST = 2
_TOKENS = ("tokens", "eval_tokens")


def entries_table(results: Results) -> Table:
    """Mean, deviation and cost of each entry over its finished seeds.

    Args:
      results: of a suite.

    Returns:
      A Table, the best mean of each metric marked.
    """
    metrics = results.metrics
    spreads = {
        entry: {name: spread(list(results.by_seed(entry, name).values())) for name in metrics}
        for entry in results.entries
    }
    best = {name: _best(name, [own[name] for own in spreads.values()]) for name in metrics}
    finished = {entry: results.of(entry) for entry in results.entries}
    seconds = {e: _median(run.seconds_per_step for run in own) for e, own in finished.items()}
    flops = {e: _median(run.flops for run in own) for e, own in finished.items()}
    rows = []
    for entry in results.entries:
        own, cells = spreads[entry], [Cell(visible(entry)), Cell(_counts(results, entry))]
        for name in metrics:
            wins = own[name] is not None and own[name].mean == best[name]
            cells.append(Cell(_spread_in_words(name, own[name]), "best" if wins else ""))
        for cost, told in ((seconds, _seconds), (flops, _giga)):
            cells += [Cell(told(cost[entry])), Cell(_over(cost, entry, results.reference))]
        rows.append([*cells, Cell(hours(results, entry) or _NONE)])
    heads = [f"{METRICS[n].label} {'↑' if METRICS[n].better > 0 else '↓'}" for n in metrics]
    costs = ["step, s", "time ×", "GFLOP", "FLOPs ×", "hours"]
    note = f"{_ENTRIES} ×: over those of {visible(results.reference)}."
    notes = [unlike_machines(results), note]
    return Table("Entries", ["entry", "seeds", *heads, *costs], rows, " ".join(filter(None, notes)))


def differences_tables(results: Results) -> list[Table]:
    """Each entry's difference from the reference, a table for each error that was measured.

    Args:
      results: of a suite.

    Returns:
      Tables; none for a metric that nothing but the reference has.
    """
    others = [entry for entry in results.entries if entry != results.reference]
    tables = []
    for name in (name for name in ERRORS if name in results.metrics):
        found = {entry: differences(results, entry, name) for entry in others}
        rows = [_difference_row(entry, pair) for entry, pair in found.items() if pair is not None]
        if rows:
            title = f"{METRICS[name].label} over that of {visible(results.reference)}"
            tables.append(Table(title, _DIFFERENCE_HEADS, rows, _METHOD))
    return tables


def differences(results: Results, entry: str, metric: str) -> Paired | None:
    """The paired difference of an entry from the reference; None where no seed is in both."""
    pair = (results.by_seed(own, metric) for own in (entry, results.reference))
    positive = [{seed: value for seed, value in own.items() if value > 0} for own in pair]
    return paired(*positive)


_ENTRIES = (
    "Means over finished seeds, ± the deviation of the sample (over n - 1), of the best "
    "evaluation of each run. Seconds are those of training steps at the median rate, without "
    "compilation, evaluations and checkpoints; what else the machine had to do is in them. "
    "FLOPs are a step's on one device, as XLA counts them; several inner updates that are one "
    "program count as so many steps, and steps of two kinds by their turns. Hours are those of all "
    "processes that have ended, with compilation and evaluations, of runs that failed and of "
    "timings too; ≥ where of a run nothing tells."
)
_DIFFERENCE_HEADS = [
    *("entry", "difference", f"{LEVEL:.0%} interval", "p", "by seed"),
    f"seeds to see {DIFFERENCE:.0%}",
]
_METHOD = (
    "A seed draws the initialisation, the order and the augmentation of both runs, so they are "
    "paired: Student's t, two-sided, on ln(entry / reference) of each seed that both have finished "
    "(scipy.stats.ttest_1samp); the difference is the geometric mean of the ratios, less 1, and "
    "negative where the entry is better. An interval that holds 0 decides nothing. The last column "
    f"is the number of seeds with which a difference of {DIFFERENCE:.0%} would be seen in "
    f"{POWER:.0%} of the cases, if ratios spread as they do here: from few seeds a rough number. "
    "Every row is a test of its own: of twenty entries that equal the reference, one is outside of "
    "its interval."
)


def runs_table(results: Results) -> Table:
    """Every run with its numbers.

    Args:
      results: of a suite.

    Returns:
      A Table.
    """
    metrics, sized = results.metrics, any(run.codes for run in results.runs)
    rows = []
    for run in results.runs:
        cells = [Cell(visible(run.entry)), Cell(str(run.seed))]
        cells += [Cell(run.outcome.state), Cell(f"{run.step:,}")]
        cells += [Cell(f"{run.codes:,}")] if sized else []
        cells += [Cell(number(name, run.values.get(name))) for name in metrics]
        cells += [Cell(_seconds(run.seconds_per_step))]
        cells += [Cell(_minutes(run.seconds)), Cell(_minutes(run.wall_seconds))]
        rows.append(cells)
    heads = [METRICS[name].label for name in metrics]
    times = ["step, s", "minutes in steps", "minutes in all"]
    heads = ["entry", "seed", "state", "step", *(["K"] if sized else []), *heads, *times]
    note = "In all: with compilation, evaluations and checkpoints, over every start of the run."
    return Table("Every run", heads, rows, note)


def changes_table(results: Results) -> Table:
    """What each entry changes of the reference.

    Args:
      results: of a suite.

    Returns:
      A Table: the fields of the entry's first run that are not those of the reference's.
    """
    first = {run.entry: run.run.config for run in reversed(results.runs)}
    reference = first[results.reference]
    rows = []
    for entry in results.entries:
        changed = [
            f"{name} = {visible(shown(own))}"
            for name, (_, own) in _changed(reference, first[entry]).items()
            if name != "seed"
        ]
        told = "the reference" if entry == results.reference else ", ".join(changed)
        rows.append([Cell(visible(entry)), Cell(told or "nothing")])
    note = _mixed(results)
    return Table("What entries change", ["entry", "fields"], rows, note)


def _changed(reference, own):
    """The fields of two entries that differ; the tokens of priors are what an entry may change."""
    tokens = [{n: config[n] for n in _TOKENS if n in config} for config in (reference, own)]
    return differing_fields({"reference": reference, "entry": own}) | unequal_fields(tokens)


def to_csv(results: Results) -> str:
    """One line for each run, numbers as they are.

    Args:
      results: of a suite.

    Returns:
      The text of a CSV file with a head.
    """
    metrics, stream = results.metrics, io.StringIO()
    names = ["entry", "seed", "state", "step", "best_step", "codes", *metrics]
    names += ["seconds_per_step", "training_seconds", "wall_seconds", "flops_per_step"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for run in results.runs:
        best = run.run.best["step"] if run.run.best else None
        row = [run.entry, run.seed, run.outcome.state, run.step, best]
        row += [run.codes, *(run.values.get(name) for name in metrics)]
        row += [run.seconds_per_step, run.seconds, run.wall_seconds, run.flops]
        writer.writerow(["" if value is None else value for value in row])
    return stream.getvalue()


def to_markdown(table: Table) -> str:
    """A table as Markdown, with its title and its note.

    Args:
      table: any.

    Returns:
      Lines.
    """
    cells = [table.heads, *([cell.text for cell in row] for row in table.rows)]
    lines = [f"| {' | '.join(text.replace('|', '&#124;') for text in row)} |" for row in cells]
    lines.insert(1, "|---" * len(table.heads) + "|")
    note = ["", table.note] if table.note else []
    return "\n".join([f"## {table.title}", "", *lines, *note, ""])


def _difference_row(entry: str, pair: Paired) -> list[Cell]:
    interval = _NONE if pair.low is None else f"{pair.low:+.1%} to {pair.high:+.1%}"
    decided = pair.low is not None and not pair.low <= 0 <= pair.high
    by_seed = ", ".join(f"{seed}: {change:+.1%}" for seed, change in pair.changes.items())
    needed = _NONE if pair.needed is None else f"{pair.needed:,}"
    return [
        Cell(visible(entry)),
        Cell(f"{pair.change:+.1%}"),
        Cell(interval, "differs" if decided else ""),
        Cell(_NONE if pair.p is None else f"{pair.p:.2g}"),
        Cell(by_seed),
        Cell(needed),
    ]


def _best(name: str, spreads: Sequence[Spread | None]) -> float | None:
    """The best mean of several; None where there are no rivals."""
    means = [own.mean for own in spreads if own is not None]
    if len(means) < _FEWEST:
        return None
    return max(means, key=lambda mean: METRICS[name].better * mean)


def _counts(results: Results, entry: str) -> str:
    finished = len(results.of(entry))
    begun = sum(run.entry == entry for run in results.runs)
    return str(finished) if finished == begun else f"{finished} of {begun}"


def _spread_in_words(name: str, own: Spread | None) -> str:
    if own is None:
        return _NONE
    deviation = "" if own.deviation is None else f" ± {number(name, own.deviation)}"
    return f"{number(name, own.mean)}{deviation}"


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value]
    return statistics.median(found) if found else None


def _over(costs, entry, reference) -> str:
    if costs[entry] is None or costs[reference] is None:
        return _NONE
    return f"{costs[entry] / costs[reference]:.2f}"


def _giga(value: float | None) -> str:
    return _NONE if value is None else f"{value / 1e9:,.2f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return _NONE
    # Three digits, whatever a step takes.
    digits = max(2 - math.floor(math.log10(value)), 0) if value > 0 else 2
    return f"{value:.{digits}f}"


def _minutes(value: float | None) -> str:
    return _NONE if value is None else f"{value / 60:,.1f}"


def _mixed(results: Results) -> str:
    """A sentence on entries whose own runs differ in more than the seed."""
    told = []
    for entry in results.entries:
        configs = {str(run.seed): run.run.config for run in results.runs if run.entry == entry}
        fields = [name for name in differing_fields(configs) if name != "seed"]
        if fields:
            told.append(f"Runs of {visible(entry)} differ among themselves: {', '.join(fields)}.")
    return " ".join(told)
