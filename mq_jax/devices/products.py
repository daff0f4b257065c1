"""How fast this machine multiplies matrices: the roof of what it computes."""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

_SECONDS = 1.0
# Side of a square product, and how many follow each other between two waits: on an accelerator a
# small one ends before the next is handed over.
_SMALL, _LARGE = (2048, 1), (8192, 16)


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
    jax.block_until_ready(product(factor, factor))
    seconds, begin = [], time.perf_counter()
    while not seconds or time.perf_counter() - begin < _SECONDS:
        started = time.perf_counter()
        for _ in range(calls):
            last = product(factor, factor)
        jax.block_until_ready(last)
        seconds.append((time.perf_counter() - started) / calls)
    return 2 * side**3 / statistics.median(seconds) / 1e9
