"""Ctrl-C and SIGTERM: finish the step, save, then stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a flag; the second raises KeyboardInterrupt.

    A context manager; on exit the handlers are as before. Python lets only the main thread
    handle signals: in another one nothing changes and `requested` stays False.
    """

    def __init__(self):
        self.signal_name: str | None = None
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.signal_name is not None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *exception) -> None:
        self._hand_back()

    def _note(self, number: int, frame) -> None:
        """Handles a signal."""
        name = signal.Signals(number).name
        if self.requested:
            self._hand_back()
            raise KeyboardInterrupt(f"second signal: {name}")
        self.signal_name = name
        message = f"\n{name}: finishing this step, then saving; press again to quit at once\n"
        # Not print: the signal may have come in the middle of one, which is not reentrant.
        with contextlib.suppress(OSError):  # Nobody may be reading any more.
            os.write(2, message.encode())

    def _hand_back(self) -> None:
        """Restores the handlers from before; None stands for one not set from Python."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
