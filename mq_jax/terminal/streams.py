"""Standard output and error that never fail the work: what they do not take is dropped and told."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from absl import logging

from mq_jax.terminal.escaping import visible, visible_block

# Sentences on streams that lost something, until a log has them.
_untold: list[str] = []

# What a stream of one's own may raise: a full disk, a reader that went, one that is closed.
_FAILURES = (OSError, ValueError)


class Stream:
    """A text stream whose writing never raises; all else is the stream's own.

    A reader that went away ends it for good; after anything else the next write is tried again.
    What its encoding lacks is written as backslash escapes.

    Args:
      stream: the one to write to; None, as sys.stdout is where it is closed from the start.
      name: as a sentence begins with it.
    """

    def __init__(self, stream: TextIO | None, name: str):
        self._stream, self._name = stream, name
        self._gone, self._told = stream is None, stream is None

    def write(self, text: str) -> int:
        """Writes what can be written."""
        self._attempt(lambda: self._write(text))
        return len(text)

    def writelines(self, lines) -> None:
        """Writes texts, one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hands everything on, if somebody takes it."""
        self._attempt(lambda: self._stream.flush())

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return bool(self._attempt(lambda: self._stream.isatty()))

    def finish(self) -> None:
        """Flushes for the last time, so that the interpreter, which does too, has nothing left."""
        self.flush()
        if self._told:
            self._lead_nowhere()

    @property
    def encoding(self) -> str:
        """The stream's own."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_stream"], name)

    def _write(self, text):
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            replaced = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            self._stream.write(replaced)

    def _attempt(self, function: Callable[[], Any]) -> Any:
        """The function's value, None where the stream does not take it."""
        if self._gone:
            return None
        try:
            return function()
        except _FAILURES as error:
            self._lose(error)
            return None

    def _lose(self, error):
        """Notes that something is lost, once; of a stream that is gone, gives up the rest."""
        reason = getattr(error, "strerror", None) or str(error)
        if not self._told:
            _untold.append(f"{self._name} cannot be written to ({reason}); going on without it")
        self._told = True
        # ValueError: somebody closed it.
        if isinstance(error, BrokenPipeError | ValueError) or error.errno == errno.EBADF:
            self._gone = True
            self._lead_nowhere()

    def _lead_nowhere(self):
        """Points its descriptor at nothing: what is buffered would fail again at the very end."""
        with contextlib.suppress(AttributeError, *_FAILURES):
            descriptor = self._stream.fileno()
            # Those of a stand-in, which may be files of its own, are left alone.
            if descriptor in (1, 2):
                _open_nothing(descriptor)


def protect_streams() -> None:
    """Makes standard output and error safe for all that writes to them, libraries too.

    To be called before anything else of a program.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened would receive what is meant for a person.
            _open_nothing(descriptor)
    sys.stdout, sys.stderr = standard_output(), standard_error()
    _finish_at_exit()


def standard_output() -> Stream:
    """Standard output of this moment, made safe."""
    return _safe(sys.stdout, "Standard output")


def standard_error() -> Stream:
    """Standard error of this moment, made safe."""
    return _safe(sys.stderr, "Standard error")


def tell(*lines: str) -> None:
    """Prints lines on standard output; the one way in which the programs do.

    Args:
      lines: each is made visible, so that it stays one line.
    """
    _print("".join(f"{visible(line)}\n" for line in lines))


def tell_block(text: str) -> None:
    """Prints text of several lines that this program made, without a name from outside.

    Args:
      text: lines divided by line feeds.
    """
    _print(f"{visible_block(text)}\n")


def tell_losses() -> None:
    """Logs which streams lost something, if that has not been told yet."""
    for sentence in untold_losses():
        logging.warning("%s", sentence)


def untold_losses() -> list[str]:
    """Sentences on streams that lost something; whoever takes them tells them."""
    taken = _untold[:]
    _untold.clear()
    return taken


def _print(text):
    """Prints at once: at the exit nobody could be told that it is lost."""
    output = standard_output()
    output.write(text)
    output.flush()
    tell_losses()


def _safe(stream, name) -> Stream:
    return stream if isinstance(stream, Stream) else Stream(stream, name)


def _open_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)


@functools.cache
def _finish_at_exit() -> None:
    """Registers the last flush, once in a process."""
    atexit.register(lambda: [s.finish() for s in (standard_output(), standard_error())])
