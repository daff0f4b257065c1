"""How fast this machine multiplies matrices and copies: the roofs of what it computes."""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

_SECONDS = 1.0
# Side of a square product, and how many follow each other between two waits: on an accelerator a
# small one ends before the next is handed over.
_SMALL, _LARGE = (2048, 1), (8192, 16)
# Numbers of an array that no cache holds.
_COPIED = 2**26


def matmul_rate(dtype: str = "float32") -> float:
    """The rate of a large matrix product, timed for about a second after one warm-up.

    Args:
      dtype: of its factors.

    Returns:
      GFLOP/s of one device, the median, at JAX's default precision.
    """
    side, calls = _SMALL if jax.default_backend() == "cpu" else _LARGE
    # Of zeros or ones a GPU draws less power, and is faster than a net ever finds it.
    numbers = np.random.default_rng(0).standard_normal((side, side), np.float32)
    factor = jax.device_put(numbers).astype(dtype)
    product = jax.jit(jnp.matmul)
    seconds = _median_seconds(lambda: product(factor, factor), calls)
    return 2 * side**3 / seconds / 1e9


def copy_rate() -> float:
    """The rate of a large copy, x + 1, timed for about a second after one warm-up.

    Returns:
      GB/s of one device, the median: what is read and what is written.
    """
    calls = 1 if jax.default_backend() == "cpu" else _LARGE[1]
    numbers, copied = (jnp.zeros(_COPIED, jnp.float32) for _ in range(2))
    # Over the last copy: memory that was never written to costs many times as much.
    add = jax.jit(lambda numbers, _: numbers + 1, donate_argnums=1, keep_unused=True)

    def copy():
        nonlocal copied
        copied = add(numbers, copied)
        return copied

    return 2 * numbers.nbytes / _median_seconds(copy, calls) / 1e9


def _median_seconds(function, calls):
    """Seconds of one call, timed after one warm-up."""
    jax.block_until_ready(function())
    seconds, begin = [], time.perf_counter()
    while not seconds or time.perf_counter() - begin < _SECONDS:
        started = time.perf_counter()
        for _ in range(calls):
            last = function()
        jax.block_until_ready(last)
        seconds.append((time.perf_counter() - started) / calls)
    return statistics.median(seconds)
