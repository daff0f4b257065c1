"""How everything here is timed: in turn, in one process."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def interleaved(functions: dict[Any, Callable], rounds: int) -> dict[Any, float]:
    """Median seconds of each function, run in turn after one warm-up.

    Args:
      functions: of nothing, by name.
      rounds: of all of them.

    Returns:
      Seconds by name.
    """
    seconds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
