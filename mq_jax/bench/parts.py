"""One part of what is measured, on as many cores as are asked for."""

import json
import os
import pathlib
import time
from collections.abc import Sequence

from ml_collections import ConfigDict

from mq_jax.bench.checkpoint import bench_checkpoint
from mq_jax.bench.hypergradients import KINDS as COMPARED
from mq_jax.bench.hypergradients import Subject, bench_hypergradients
from mq_jax.bench.input import bench_input
from mq_jax.bench.lookup import bench_lookup
from mq_jax.bench.machine import machine
from mq_jax.bench.operations import bench_operations, chosen_steps, require_cpu
from mq_jax.bench.peers import bench_peers
from mq_jax.bench.pieces import bench_pieces
from mq_jax.bench.quantizers import KINDS as QUANTIZERS
from mq_jax.bench.quantizers import bench_quantizers
from mq_jax.bench.sampling import bench_sampling
from mq_jax.bench.startup import bench_startup
from mq_jax.bench.step import HYPERGRADIENTS, bench_step, chosen_kinds
from mq_jax.bench.tokenizer import bench_tokenizer
from mq_jax.bench.unroll import bench_unroll
from mq_jax.devices.platforms import require_platform
from mq_jax.storage.files import write_atomically
from mq_jax.terminal.console import tables_kept


def kinds_named(
    text: str, part: str, config: ConfigDict, straight_through: str = "all"
) -> list[str]:
    """Hyper-gradients of train steps, or kinds of quantizers.

    Args:
      text: names divided by commas.
      part: of the timings.
      config: validated.
      straight_through: of the steps.

    Returns:
      The names; none for "".

    Raises:
      ValueError: the part has none of the name, or training does not take it.
    """
    # Of a quantizer's forms, whose names have commas, the first alone can be named.
    plain = tuple(name for name in QUANTIZERS if "," not in name)
    named = {"step": HYPERGRADIENTS, "operations": HYPERGRADIENTS}
    named |= {"quantizers": plain, "hypergradients": COMPARED}
    known = named.get(part, ())
    names = text.split(",") if text else []
    if strange := [name for name in names if name not in known]:
        expected = f"some of {', '.join(known)}" if known else f"none with --part={part}"
        raise ValueError(f"--kinds={text} names {strange[0]!r}; expected {expected}.")
    if part == "step":
        chosen_kinds(config, straight_through, names)
    if part == "operations":
        chosen_steps(config, straight_through, names)
    return names


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
    subject: Subject | None = None,
    output: pathlib.Path | None = None,
) -> None:
    """Measures one part and prints its table.

    Args:
      part: one of those that `python -m mq_jax.bench --help` names.
      config: the experiment, validated.
      rounds: interleaved ones; medians count.
      straight_through: estimator of the train steps, or "all".
      cores: CPU cores that use_cores took.
      kinds: hyper-gradients, of the train steps those beside the joint one, or quantizers beside
        `vq`; none for all, of `operations` for the configuration's own.
      subject: of the part `hypergradients`, which alone has one.
      output: file for the tables and what they were measured on, as JSON, written anew with each
        row; None for none.

    Raises:
      ValueError: the part is of another kind of device.
    """
    parts = {
        "step": lambda: bench_step(config, rounds, straight_through, kinds),
        "operations": lambda: bench_operations(config, rounds, straight_through, kinds),
        "hypergradients": lambda: bench_hypergradients(config, subject, kinds),
        "unroll": lambda: bench_unroll(config, rounds),
        "pieces": lambda: bench_pieces(config, rounds),
        "lookup": lambda: bench_lookup(config, rounds),
        "quantizers": lambda: bench_quantizers(config, rounds, kinds),
        "input": lambda: bench_input(config, cores),
        "startup": bench_startup,
        "sampling": lambda: bench_sampling(rounds),
        "checkpoint": lambda: bench_checkpoint(config, rounds),
        "tokenizer": lambda: bench_tokenizer(config, rounds),
        "peers": lambda: bench_peers(config, rounds, cores),
    }
    if part == "operations":
        require_cpu()
    began, tables = time.monotonic(), []
    if output is None:
        parts[part]()
        return
    told = {"part": part, "whole": False, "environment": machine(), "tables": tables}

    def write():
        seconds = round(time.monotonic() - began, 1)
        write_atomically(output, json.dumps(told | {"seconds": seconds}, indent=2) + "\n")

    # Before the first row, too: of a part that is cut short there is at least what it ran on.
    write()
    with tables_kept(tables, write):
        parts[part]()
    told["whole"] = True
    write()
