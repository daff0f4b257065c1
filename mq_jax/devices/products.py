"""How fast this machine multiplies matrices: the roof of what it computes."""

import statistics
import time

import jax
import jax.numpy as jnp

_SECONDS = 1.0
# What a call costs besides is little then, on a CPU as on an accelerator.
_SIDES = {"cpu": 2048}
_SIDE = 8192


def matmul_rate(dtype: str = "float32") -> float:
    """The rate of a large matrix product, timed for about a second after one warm-up.

    Args:
      dtype: of its factors.

    Returns:
      GFLOP/s of one device, the median.
    """
    n = _SIDES.get(jax.default_backend(), _SIDE)
    a = jnp.ones((n, n), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    seconds, begin = [], time.perf_counter()
    while not seconds or time.perf_counter() - begin < _SECONDS:
        started = time.perf_counter()
        jax.block_until_ready(product(a, a))
        seconds.append(time.perf_counter() - started)
    return 2 * n**3 / statistics.median(seconds) / 1e9
