"""compare.csv, compare.md and compare.html in the folder of a suite."""

import datetime
import pathlib

from mq_jax.report.page import Key, render_page
from mq_jax.report.tables import Table, comparison_table, environment_fields
from mq_jax.storage.files import write_atomically
from mq_jax.suites.machines import hours
from mq_jax.suites.plots import sections
from mq_jax.suites.results import Results
from mq_jax.suites.tables import (
    changes_table,
    differences_tables,
    entries_table,
    runs_table,
    to_csv,
    to_markdown,
)
from mq_jax.terminal.escaping import visible

NAMES = ("compare.csv", "compare.md", "compare.html")


def write_comparison(results: Results, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes all three, each whole or not at all.

    Args:
      results: of the suite in the folder.
      folder: of the suite.

    Returns:
      The paths of NAMES.

    Raises:
      OSError: one of them cannot be written.
    """
    texts = to_csv(results), _markdown(results), _page(results)
    paths = [folder / name for name in NAMES]
    for path, text in zip(paths, texts, strict=True):
        write_atomically(path, text)
    return paths


def _title(results: Results) -> str:
    return f"Suite {visible(results.name)}" if results.name else "Runs compared"


def _subtitle(results: Results) -> str:
    finished, took = sum(run.is_finished for run in results.runs), hours(results)
    return (
        f"{len(results.entries)} entries, {finished} of {len(results.runs)} runs finished; "
        f"the reference is {visible(results.reference)}{f'; {took} hours in all' if took else ''}"
    )


def _tables(results: Results) -> list[Table]:
    return [entries_table(results), *differences_tables(results), runs_table(results)]


def _markdown(results: Results) -> str:
    """The tables, and what is missing from them."""
    parts = [f"# {_title(results)}", "", f"{_subtitle(results)}.", ""]
    parts += [to_markdown(table) for table in (*_tables(results), changes_table(results))]
    lines = [f"* {visible(name)}: {visible(told)}" for name, told in results.ailments]
    lines += [f"* Unlike protocols: {visible(told)}" for told in results.unlike]
    parts += ["## What is missing", "", *lines, ""] if lines else []
    return "\n".join(parts)


def _page(results: Results) -> str:
    runs = [run.run for run in results.runs]
    machines = comparison_table("Packages and devices", runs, environment_fields)
    return render_page(
        title=_title(results),
        subtitle=_subtitle(results),
        date=datetime.date.today().isoformat(),
        runs=[Key(visible(entry)) for entry in results.entries],
        overview=_tables(results),
        unlike=results.unlike,
        ailments=[(visible(name), visible(told)) for name, told in results.ailments],
        sections=sections(results),
        configuration=[(changes_table(results), True)],
        environment=_merged(machines),
    )


def _merged(table: Table) -> Table | None:
    """A column for all runs where they were made alike: a table of many runs is wide."""
    rows = [[row[0], *dict.fromkeys(row[1:])] for row in table.rows]
    if not rows:
        return None
    width = max(map(len, rows))
    heads = ["", "all runs"] if width == 2 else ["", *(f"value {n}" for n in range(1, width))]
    blank = table.rows[0][0]._replace(text="")
    return Table(table.title, heads, [row + [blank] * (width - len(row)) for row in rows])
