"""How long each stage of a command on images takes, and which of them decides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Stages:
    """The seconds of reading, network and writing, which go on at the same time.

    Args:
      threads: that read, and as many that write where each image has a file of its own.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._seconds = {"reading": 0.0, "network": 0.0, "writing": 0.0}
        self._sharing = dict.fromkeys(self._seconds, 1)
        self._waited, self._lock = 0.0, threading.Lock()

    def timed(self, stage: str, function: Callable[..., T], threads: int = 1) -> Callable[..., T]:
        """A function whose seconds count for a stage, in any thread.

        Args:
          stage: "reading", "network" or "writing".
          function: what it does.
          threads: that do it at the same time.

        Returns:
          The function.
        """
        self._sharing[stage] = threads

        def counted(*arguments: Any) -> T:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self._seconds[stage] += time.perf_counter() - started

        return counted

    def awaited(self, values: Iterable[T]) -> Iterator[T]:
        """What was read; the time that its taker waits for it counts apart.

        Args:
          values: from reading.

        Yields:
          The values.
        """
        values = iter(values)
        while True:
            started = time.perf_counter()
            try:
                value = next(values)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - started
            yield value

    def told(self) -> str:
        """One line: the seconds of each stage, summed over its threads, and which one decides.

        Returns:
          The line; "" where the network had nothing to do.
        """
        if not self._seconds["network"]:
            return ""
        parts = []
        for stage, seconds in self._seconds.items():
            threads = self._sharing[stage]
            parts.append(f"{stage} {seconds:.1f} s" + f" over {threads} threads" * (threads > 1))
        parts[0] = parts[0].capitalize() + f" ({self._waited:.1f} s waited for)"
        # Threads side by side: what each of them took.
        longest = max(self._seconds, key=lambda name: self._seconds[name] / self._sharing[name])
        return f"{', '.join(parts)}: {longest} decides."
