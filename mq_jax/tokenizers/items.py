"""Images on their way through a command, a few at a time."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

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
