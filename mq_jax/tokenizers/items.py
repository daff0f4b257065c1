"""Images on their way through a command, a few at a time."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

# Decoding and compressing release the interpreter; the model has the other cores.
THREADS = 2


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
