"""Images on their way through a command, a few at a time."""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np


class Item(NamedTuple):
    """An image by its name, or why it cannot be read.

    Attributes:
      name: relative path, with "/".
      image: u8[H, W, 3], or None.
      reason: empty for an image.
    """

    name: str
    image: np.ndarray | None
    reason: str


@contextlib.contextmanager
def unawaited(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads; whoever is interrupted does not wait for a read or a batch that hangs."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def beside(function: Callable[[Any], Any], values: Iterable) -> Iterator:
    """Computes a value in a thread while the one before is used and the next is fetched.

    Args:
      function: of one value; a model, say, that releases the interpreter.
      values: its arguments, fetched by the caller's thread.

    Yields:
      function(value) of each value, in order; where fetching fails, of those before, then it
      raises.
    """
    values, waiting = iter(values), collections.deque[Future]()
    failure = None
    with unawaited(1) as pool:
        while True:
            try:
                waiting.append(pool.submit(function, next(values)))
            except StopIteration:
                break
            # A Ctrl-C too: what was fetched is not lost to it.
            except BaseException as error:
                failure = error
                break
            if len(waiting) > 1:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
        if failure is not None:
            raise failure


def ahead(pool: ThreadPoolExecutor, function, values: Iterable, count: int) -> Iterator:
    """Computes values in threads while those before them are used.

    Args:
      pool: of the threads.
      function: of one value.
      values: its arguments.
      count: values that are computed ahead, at most.

    Yields:
      function(value) of each value, in order.
    """
    values, waiting = iter(values), collections.deque[Future]()
    for value in itertools.islice(values, count):
        waiting.append(pool.submit(function, value))
    while waiting:
        result = waiting.popleft().result()
        for value in itertools.islice(values, 1):
            waiting.append(pool.submit(function, value))
        yield result


def ahead_within(
    pool: ThreadPoolExecutor,
    function,
    values: Iterable,
    count: int,
    size: Callable[[Any], int],
    most: int,
) -> Iterator:
    """As `ahead`, where results that wait take a bounded room.

    Args:
      pool: of the threads.
      function: of one value.
      values: its arguments.
      count: values that are computed ahead, at most.
      size: of a result.
      most: of sizes that wait together; beyond it only what was begun before is still computed.

    Yields:
      function(value) of each value, in order.
    """
    room = _Room(most)

    def compute(numbered):
        number, value = numbered
        room.enter(number)
        result = function(value)
        room.fill(size(result))
        return result

    try:
        for number, result in enumerate(ahead(pool, compute, enumerate(values), count)):
            room.leave(size(result), number + 1)
            yield result
    finally:
        room.close()


class _Room:
    """Lets threads begin with values while the results that wait leave room for more."""

    def __init__(self, most: float):
        self._most, self._taken, self._turn = most, 0, 0
        self._changed = threading.Condition()

    def enter(self, number: int) -> None:
        """Waits for room; whoever is taken next has it always."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self._most or number <= self._turn)

    def fill(self, size: int) -> None:
        """Counts a result that waits from now on."""
        with self._changed:
            self._taken += size

    def leave(self, size: int, turn: int) -> None:
        """Counts a result that was taken, and says whose turn it is next."""
        with self._changed:
            self._taken, self._turn = self._taken - size, turn
            self._changed.notify_all()

    def close(self) -> None:
        """Lets everybody in: a thread that waits would keep the process from its end."""
        with self._changed:
            self._most = float("inf")
            self._changed.notify_all()
