"""Log lines for a terminal and for a file: none is forged, and none that fails ends the work."""

from __future__ import annotations

import copy
import logging
import os
import pathlib

import tqdm

from mq_jax.terminal.escaping import Block, visible, visible_block
from mq_jax.terminal.streams import standard_error, untold_losses

_PACKAGE = pathlib.Path(__file__).parents[1]


class LineFormatter(logging.Formatter):
    """Writes a record so that nothing from outside can begin a line of its own.

    What this package fills into its messages becomes one visible line, but for a Block; further
    lines of other libraries' messages and of tracebacks are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        safe = copy.copy(record)
        # Another handler may have kept its own form of the traceback there.
        safe.exc_text = None
        if is_ours(record) and isinstance(record.args, tuple):
            safe.args = tuple(_shown(argument) for argument in record.args)
            safe.msg, safe.args = _message(safe), ()
        else:
            safe.msg, safe.args = visible_block(_message(record), "  "), ()
        return super().format(safe)

    def formatException(self, info) -> str:  # noqa: N802
        """A traceback, every line of it indented."""
        return "  " + visible_block(super().formatException(info), "  ")


class TerminalHandler(logging.Handler):
    """Prints a record above the live progress line instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record; what standard error does not take is told in the log file."""
        tqdm.tqdm.write(self.format(record), file=standard_error())


class FileHandler(logging.Handler):
    """Appends records to a file; while that fails, says so once and counts what is lost.

    Args:
      path: of the file.

    Raises:
      OSError: it cannot be opened.
    """

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self._path, self._lost, self._told, self._torn = path, 0, False, False
        # No buffer: what fails is this record, and not some later one.
        self._file = open(path, "ab", buffering=0)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record, after those on what other outputs have lost."""
        losses = [_warning(sentence) for sentence in untold_losses()]
        for each in (*losses, record):
            try:
                self._write(self.format(each))
            except OSError as error:
                self._lose(error, each.levelno)

    def close(self) -> None:
        """Writes what has not been told yet, and closes the file."""
        if not self._file.closed:
            for sentence in untold_losses():
                self.emit(_warning(sentence))
            self._file.close()
        super().close()

    def _write(self, text):
        """Appends a text of whole lines."""
        if self._lost:
            gap = self.format(_warning(f"{self._lost} line(s) are missing here"))
            text = f"{gap}\n{text}"
        # A full disk may have taken the beginning of a line.
        data = (b"\n" if self._torn else b"") + text.encode("utf-8", "backslashreplace") + b"\n"
        while data:
            written = self._file.write(data)
            data = data[written:]
            self._torn = bool(data)
        self._lost, self._told = 0, False

    def _lose(self, error, level):
        """Counts a record that is lost; of several in a row, tells the first, but no detail."""
        self._lost += 1
        if not self._told and level > logging.DEBUG:
            self._told = True
            reason = error.strerror or error
            message = f"The log file {self._path} cannot be written to ({reason}); going on"
            tqdm.tqdm.write(visible(message), file=standard_error())


def is_ours(record: logging.LogRecord) -> bool:
    """Whether this package logged it; TFDS and others log through absl, too."""
    return pathlib.Path(record.pathname).is_relative_to(_PACKAGE)


def _shown(argument):
    """An argument of a message: numbers as they are, all else as one visible line."""
    if isinstance(argument, Block):
        return visible_block(argument)
    if isinstance(argument, str | os.PathLike | BaseException):
        return visible(argument)
    return argument


def _message(record):
    """The message; where its arguments do not fit, which is no reason to stop, what there is."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {record.args!r}"


def _warning(text: str) -> logging.LogRecord:
    """A record of this package's own."""
    return logging.LogRecord("mq_jax", logging.WARNING, __file__, 0, text, (), None)
