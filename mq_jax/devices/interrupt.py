"""Signals that ask to stop: a training finishes its step and saves, all else ends in order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# Ctrl-C, a scheduler's end, a closed terminal, a scheduler's warning of its end.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Those that announce another one, or come several times by themselves: they never insist.
_WARNINGS = ("SIGHUP", "SIGUSR1")


class Stopped(KeyboardInterrupt):
    """A signal asked to stop where no step was to be finished; the message is its name."""


class Interrupt:
    """Turns the first signal into a flag; a second SIGINT or SIGTERM raises KeyboardInterrupt.

    A context manager; on exit the handlers are as before. Python lets only the main thread
    handle signals: in another one nothing changes and `requested` stays False. A signal that
    this process was started to ignore, as nohup does with SIGHUP, is ignored here too.
    """

    def __init__(self):
        self.signal_name: str | None = None
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.signal_name is not None

    def __enter__(self) -> Interrupt:
        self._previous = _handled_by(self._note)
        return self

    def __exit__(self, *exception) -> None:
        self._hand_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        name = signal.Signals(number).name
        if self.requested and name in _WARNINGS:
            return
        if self.requested and self.signal_name not in _WARNINGS:
            self._hand_back()
            raise KeyboardInterrupt(f"second signal: {name}")
        self.signal_name = name
        message = f"\n{name}: finishing this step, then saving; press again to quit at once\n"
        # Not print: the signal may have come in the middle of one, which is not reentrant. With
        # the terminal closed there is nobody to tell.
        with contextlib.suppress(OSError):
            os.write(2, message.encode())

    def _hand_back(self) -> None:
        _restore(self._previous)
        self._previous = {}


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """A block in which SIGTERM, SIGHUP and SIGUSR1 raise Stopped, and SIGINT KeyboardInterrupt.

    On exit the handlers are as before; in another thread than the main one nothing changes.
    """
    previous = _handled_by(_stop)
    try:
        yield
    finally:
        _restore(previous)


def end_quietly() -> None:
    """Lets Ctrl-C end a program that is still starting: one line, exit code 130, no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _stop(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped(signal.Signals(number).name)


def _end(number: int, frame: FrameType | None) -> None:
    # Nothing has begun that would have to be ended in order.
    with contextlib.suppress(OSError):
        os.write(2, b"Stopped.\n")
    os._exit(130)


def _handled_by(handler) -> dict[int, object]:
    """Sets the handler of all signals that are not ignored; returns those before, by number."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


def _restore(previous: dict[int, object]) -> None:
    """Restores handlers; None stands for one not set from Python."""
    for number, handler in previous.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
