"""One part of the timings, on as many cores as are asked for."""

import json
import os
import pathlib
import time
from collections.abc import Sequence

from ml_collections import ConfigDict

from mq_jax.bench.checkpoint import bench_checkpoint
from mq_jax.bench.input import bench_input
from mq_jax.bench.lookup import bench_lookup
from mq_jax.bench.peers import bench_peers
from mq_jax.bench.pieces import bench_pieces
from mq_jax.bench.quantizers import bench_quantizers
from mq_jax.bench.sampling import bench_sampling
from mq_jax.bench.startup import bench_startup
from mq_jax.bench.step import bench_step
from mq_jax.bench.tokenizer import bench_tokenizer
from mq_jax.bench.unroll import bench_unroll
from mq_jax.devices.environment import environment
from mq_jax.devices.platforms import require_platform
from mq_jax.storage.files import write_atomically
from mq_jax.terminal.console import tables_kept


def use_cores(count: int) -> None:
    """Keeps to some cores and starts JAX, which takes as many threads as it is allowed cores.

    Args:
      count: of CPU cores.

    Raises:
      ValueError: JAX cannot start here as the environment asks.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    require_platform()


def run_part(
    part: str,
    config: ConfigDict,
    *,
    rounds: int,
    straight_through: str,
    cores: int,
    kinds: Sequence[str] = (),
    output: pathlib.Path | None = None,
) -> None:
    """Times one part and prints its table.

    Args:
      part: one of those that `python -m mq_jax.bench --help` names.
      config: the experiment, validated.
      rounds: interleaved ones; medians count.
      straight_through: estimator of the train steps, or "all".
      cores: CPU cores that use_cores took.
      kinds: hyper-gradients of the train steps beside the joint one; none for all.
      output: file for the tables and what they were measured on, as JSON; None for none.
    """
    parts = {
        "step": lambda: bench_step(config, rounds, straight_through, kinds),
        "unroll": lambda: bench_unroll(config, rounds),
        "pieces": lambda: bench_pieces(config, rounds),
        "lookup": lambda: bench_lookup(config, rounds),
        "quantizers": lambda: bench_quantizers(config, rounds),
        "input": lambda: bench_input(config, cores),
        "startup": bench_startup,
        "sampling": lambda: bench_sampling(rounds),
        "checkpoint": lambda: bench_checkpoint(config, rounds),
        "tokenizer": lambda: bench_tokenizer(config, rounds),
        "peers": lambda: bench_peers(config, rounds, cores),
    }
    began = time.monotonic()
    with tables_kept() as tables:
        parts[part]()
    if output is not None:
        told = {"part": part, "seconds": round(time.monotonic() - began, 1)}
        told |= {"environment": environment(), "tables": tables}
        write_atomically(output, json.dumps(told, indent=2) + "\n")
