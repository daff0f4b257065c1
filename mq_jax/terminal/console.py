"""What a person sees while a run goes on: log lines, a live progress line, a table."""

import contextlib
import io
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm
from absl import logging as absl_logging
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mq_jax.terminal import logs
from mq_jax.terminal.escaping import Block, visible
from mq_jax.terminal.streams import standard_error, standard_output, tell, tell_losses

# Between two lines of progress where there is no terminal.
_LINE_SECONDS = 30

# Steps after which such a log says at once how fast it goes, before the first report is due.
_EARLY = (1, 10)


def log_to_terminal(process: int = 0) -> None:
    """Sends the program's log lines, and other libraries' warnings, to standard error.

    Args:
      process: index of this process; others than the first say warnings and errors only.
    """
    handler = logs.TerminalHandler(logging.WARNING if process else logging.INFO)
    handler.addFilter(lambda record: logs.is_ours(record) or record.levelno >= logging.WARNING)
    prefix = f"process {process}: " if process else ""
    handler.setFormatter(logs.LineFormatter(f"{prefix}%(message)s"))
    # absl's own handler prefixes each line with a file name and a thread number.
    logging.getLogger().handlers = [handler]
    absl_logging.set_verbosity(absl_logging.DEBUG)


def log_to_file(path: pathlib.Path) -> None:
    """Appends the same lines, with the time, to a file, and those too long for a terminal.

    Args:
      path: of the file; where it cannot be opened, a warning says so.
    """
    try:
        handler = logs.FileHandler(path)
    except OSError as error:
        absl_logging.warning("No log file %s (%s); going on without it", path, error.strerror)
        return
    handler.setFormatter(logs.LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)


class Progress:
    """A live line on a terminal; elsewhere, and in the log file then, a line at each report.

    Args:
      total: steps of the whole run.
      initial: steps done already.
      live: False keeps the line off a terminal, too.
    """

    def __init__(self, total: int, initial: int, live: bool = True):
        self._total, self._step = total, initial
        self._early = [initial + steps for steps in _EARLY]
        self._bar = _bar(total, initial, "step", live)

    @property
    def is_early(self) -> bool:
        """Whether a report is due because nothing has told yet how fast it goes."""
        return self._bar.disable and self._step in self._early

    def advance(self, steps: int = 1) -> None:
        """Counts steps."""
        self._step += steps
        self._bar.update(steps)

    def report(self, step: int, measured: Sequence[str], seconds_left: float) -> None:
        """Shows how the run goes.

        Args:
          step: that it tells of; further ones may have been counted since.
          measured: phrases, "loss 0.0277" say.
          seconds_left: estimate for the rest of the run.
        """
        self._bar.set_postfix_str(", ".join(measured))
        if step not in self._early:
            self._early = []
        if self._bar.disable:
            left = tqdm.tqdm.format_interval(seconds_left)
            told = "  ".join(measured)
            absl_logging.info("step %d/%d  %s  %s left", step, self._total, told, left)

    def close(self) -> None:
        """Ends the live line."""
        self._bar.close()


class ImageBar:
    """A live line of images done on a terminal; elsewhere a line every half minute.

    Args:
      total: images in all.
      initial: done already.
      live: False says nothing at all.
    """

    def __init__(self, total: int, initial: int = 0, live: bool = True):
        self._live, self._initial = live, initial
        self._started = self._told = time.monotonic()
        self._bar = _bar(total, initial, "image", live)
        self._total, self._done = total, initial

    def advance(self, images: int) -> None:
        """Counts images."""
        self._done += images
        self._bar.update(images)
        now = time.monotonic()
        if self._live and self._bar.disable and now - self._told > _LINE_SECONDS:
            self._told = now
            rate = (self._done - self._initial) / (now - self._started)
            absl_logging.info("%d of %d images, %.1f images/s", self._done, self._total, rate)

    def close(self) -> None:
        """Ends the live line."""
        self._bar.close()


@contextlib.contextmanager
def image_progress(live: bool = True) -> Iterator[Callable[[int, int], Callable[[int], None]]]:
    """An ImageBar for who learns late how many images there are; it ends with the block.

    Args:
      live: as ImageBar's.

    Yields:
      A function that is told once how many images there are in all and how many are done; what it
      returns is told the number of further ones.
    """
    with contextlib.ExitStack() as closing:

        def begin(total, done):
            bar = ImageBar(total, done, live)
            closing.callback(bar.close)
            return bar.advance

        yield begin


def _bar(total, initial, unit, live):
    """A live line, on a terminal alone."""
    error = standard_error()
    return tqdm.tqdm(
        total=total,
        initial=initial,
        unit=unit,
        file=error,
        disable=not (live and error.isatty()),
        dynamic_ncols=True,
    )


# What keeps tables at present: where, and what is called after each change.
_keepers: list[tuple[list[dict[str, Any]], Callable[[], None]]] = []


@contextlib.contextmanager
def tables_kept(kept: list[dict[str, Any]], changed: Callable[[], None]) -> Iterator[None]:
    """Keeps the tables of the block, those that are printed and those that are not whole yet.

    Args:
      kept: a list that grows, fit for JSON: {"title": ..., "columns": [...], "rows": [[...], ...],
        "whole": ...}.
      changed: called after each change of it.
    """
    keeper = kept, changed
    _keepers.append(keeper)
    try:
        yield
    finally:
        _keepers.remove(keeper)


def keep_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: bool = False
) -> None:
    """Keeps a table without printing it, in the place of the last one where that is not whole.

    Args:
      title: as print_table's.
      columns: likewise.
      rows: likewise, as many as there are.
      whole: whether no row or cell is to come.
    """
    table = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
    for kept, changed in _keepers:
        if kept and not kept[-1]["whole"]:
            kept.pop()
        kept.append({**table, "whole": whole})
        changed()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on standard output.

    Args:
      title: above the table.
      columns: heads; the first column is left-aligned, the others right-aligned.
      rows: cells.
    """
    keep_table(title, columns, rows, whole=True)
    # Not as the table's own title, which is broken to the width of the table.
    tell(title)
    output = standard_output()
    # A file has no width; 80 columns, the fallback, would cut the wider tables.
    Console(file=output, width=None if output.isatty() else 160).print(_table(columns, rows))
    output.flush()
    tell_losses()


def log_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, terminal: bool
) -> None:
    """Writes a table to the log file, and to the terminal where it is asked for.

    Args:
      title: as print_table's.
      columns: as print_table's.
      rows: as print_table's.
      terminal: whether to show it there too.
    """
    text = io.StringIO()
    Console(file=text, width=120).print(_table(columns, rows))
    log = absl_logging.info if terminal else absl_logging.debug
    log("%s\n%s", title, Block(text.getvalue()))


def _table(columns, rows):
    """A table as Rich draws it."""
    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        # As Text, since a name may hold what Rich takes for markup.
        table.add_row(*[Text(visible(cell)) for cell in row])
    return table
