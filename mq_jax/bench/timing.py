"""How everything here is timed: in turn, in one process."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

# Steps that follow each other between two waits on an accelerator, where a wait would count.
_CALLS = 8


def interleaved(functions: dict[Any, Callable], rounds: int, calls: int = 1) -> dict[Any, float]:
    """Median seconds of each function, run in turn after one warm-up.

    Args:
      functions: of nothing, by name; what they return is waited for.
      rounds: of all of them.
      calls: of one function between two waits, of which the mean counts.

    Returns:
      Seconds of one call by name.
    """
    seconds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            for _ in range(calls):
                last = function()
            jax.block_until_ready(last)
            if number:
                seconds[name].append((time.perf_counter() - started) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def calls_between_waits() -> int:
    """Calls of a program that are handed to the device before it is waited for.

    Returns:
      1 for a CPU; several for an accelerator, where a wait would count with a short program.
    """
    return 1 if jax.default_backend() == "cpu" else _CALLS
