"""How everything here is timed: in turn, in one process."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Side of a square product, and how many follow each other between two waits: on an accelerator a
# small one ends before the next is handed over.
_SMALL, _LARGE = (2048, 1), (8192, 16)
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
    return 1 if _on_cpu() else _CALLS


def matmul_rate(dtype: str = "float32") -> float:
    """GFLOP/s of a large matrix product: the roof of everything here.

    Args:
      dtype: of its factors.

    Returns:
      The rate, at JAX's default precision.
    """
    side, calls = _SMALL if _on_cpu() else _LARGE
    # Of zeros or ones a GPU draws less power, and is faster than a net ever finds it.
    numbers = np.random.default_rng(0).standard_normal((side, side), np.float32)
    factor = jax.device_put(numbers).astype(dtype)
    product = jax.jit(jnp.matmul)
    run = {"product": lambda: product(factor, factor)}
    return 2 * side**3 / interleaved(run, 9, calls)["product"] / 1e9


def _on_cpu():
    return jax.default_backend() == "cpu"
