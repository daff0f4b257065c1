"""Tables whose rows are kept as they are measured, so that what is cut short leaves its first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from mq_jax.bench.timing import calls_between_waits, interleaved
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell

# Cells of a row: (its name, the programs so far, seconds of each); the first program is the base.
Row = Callable[[str, Mapping[str, Any], Mapping[str, float]], list[str]]


def print_by_row(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table whose rows are measured one after the other.

    Args:
      title: as console.print_table's.
      columns: likewise.
      rows: measures each as it is asked for it.
    """
    measured = []
    for row in rows:
        measured.append(row)
        console.keep_table(title, columns, measured)
    console.print_table(title, columns, measured)


def print_comparison(
    title: str,
    columns: Sequence[str],
    makers: Mapping[str, Callable[[], Any]],
    row: Row,
    rounds: int,
) -> None:
    """Compiles programs one by one, each timed alone at first, then all in turn; prints the latter.

    A program that XLA cannot compile or run has a row that says so, and the others go on.

    Args:
      title: as console.print_table's, but for the rounds.
      columns: likewise.
      makers: by name, in order; each returns a program whose attribute `run` is a function of
        nothing, and what that returns is waited for.
      row: cells of a program.
      rounds: interleaved; medians count.

    Raises:
      JaxRuntimeError: the first program, over which the others are told, fails.
    """
    programs, alone, failures = {}, {}, {}

    def rows(seconds):
        failed = dict.fromkeys(failures, ["failed", *[""] * (len(columns) - 2)])
        told = {name: row(name, programs, seconds)[1:] for name in programs}
        return [[name, *(told | failed)[name]] for name in makers if name in told | failed]

    for name, make in makers.items():
        try:
            program = make()
            seconds = interleaved({name: program.run}, 1, calls_between_waits())
        except jax.errors.JaxRuntimeError as error:
            if not programs:
                raise
            failures[name] = str(error).partition("\n")[0]
        else:
            programs[name] = program
            alone |= seconds
        console.keep_table(f"{title}, each alone, once", columns, rows(alone))
    runs = {name: program.run for name, program in programs.items()}
    medians = interleaved(runs, rounds, calls_between_waits())
    console.print_table(f"{title}, medians of {rounds}", columns, rows(medians))
    tell(*[f"{name} failed: {reason}" for name, reason in failures.items()])
