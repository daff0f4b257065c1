"""A tokenizer in use: images a second beside the floor, bytes of its export, its first tokens."""

import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np
from ml_collections import ConfigDict

from mq_jax.bench.tables import print_by_row
from mq_jax.bench.timing import interleaved
from mq_jax.devices.environment import environment
from mq_jax.devices.products import matmul_rate
from mq_jax.storage.files import size_of
from mq_jax.terminal import console
from mq_jax.tokenizers.export import make_export
from mq_jax.tokenizers.export_card import training_facts
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.tokenizers.tokenizer import Tokenizer
from mq_jax.training.build import build
from mq_jax.training.first import init_state

BATCHES = (1, 8, 64)


def bench_tokenizer(config: ConfigDict, rounds: int) -> None:
    """Times both directions of an untrained model, and the way to its first tokens.

    Args:
      config: validated.
      rounds: interleaved; medians count.
    """
    built = build(config, steps=1)
    export = make_export(config, built.objective, jax.jit(lambda: init_state(built, config))())
    _print_rates(Tokenizer(export), config.data.image_size, rounds)
    facts = {
        "training": training_facts(config, 0),
        "evaluation": None,
        "environment": environment(),
    }
    with tempfile.TemporaryDirectory() as folder:
        written = write_export(pathlib.Path(folder) / "export", export, facts)
        rows = [[path.name, f"{size_of(path) / 2**20:.2f}"] for path in sorted(written.iterdir())]
        console.print_table("Export", ["", "MiB"], rows)
        _print_first_tokens(written, config.data.image_size)


def _print_rates(tokenizer: Tokenizer, side: int, rounds: int) -> None:
    """Images a second from host to host, and what the FLOPs would allow."""
    rate = matmul_rate()
    columns = ["", "images/s", "GFLOP an image", "images/s at the floor", "reached"]
    title = f"Images of {side} pixels; the floor is a matrix product's {rate:.0f} GFLOP/s"
    print_by_row(title, columns, _rates(tokenizer, side, rounds, rate))


def _rates(tokenizer, side, rounds, rate):
    """A row for each direction and batch."""
    for batch in BATCHES:
        images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
        indices = tokenizer.encode(images)
        calls = {
            "encode": (tokenizer.coding.encode, tokenizer.encode, images),
            "decode": (tokenizer.coding.decode, tokenizer.decode, indices),
        }
        seconds = interleaved({n: lambda f=f, x=x: f(x) for n, (_, f, x) in calls.items()}, rounds)
        for name, (program, _, argument) in calls.items():
            compiled = program.lower(tokenizer.weights, argument).compile()
            gflop = compiled.cost_analysis()["flops"] / batch / 1e9
            reached = batch / seconds[name]
            yield [
                *(f"{name}, batch {batch}", f"{reached:.1f}", f"{gflop:.3f}"),
                *(f"{rate / gflop:.1f}", f"{reached * gflop / rate:.0%}"),
            ]


_FIRST_TOKENS = """
import sys, time
started = time.perf_counter()
import numpy as np
from mq_jax import load_tokenizer
from mq_jax.devices.cache import use_compilation_cache
use_compilation_cache()
images = np.zeros((1, int(sys.argv[2]), int(sys.argv[2]), 3), np.uint8)
imported = time.perf_counter()
tokenizer = load_tokenizer(sys.argv[1])
loaded = time.perf_counter()
tokenizer.encode(images)
print(imported - started, loaded - imported, time.perf_counter() - loaded)
"""


def _print_first_tokens(folder: pathlib.Path, side: int) -> None:
    """Seconds to the first tokens in a process of their own, by what is compiled already."""
    columns = ["cache", "import", "load_tokenizer", "first tokens", "both"]
    print_by_row("Seconds to the first tokens", columns, _first_tokens(folder, side))


def _first_tokens(folder, side):
    """A row for each start."""
    with tempfile.TemporaryDirectory() as cache:
        variables = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for name in ("cold", "warm", "warm again"):
            ran = subprocess.run(
                [sys.executable, "-c", _FIRST_TOKENS, str(folder), str(side)],
                env=os.environ | variables,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            seconds = [float(text) for text in ran.stdout.split()]
            yield [name, *[f"{value:.2f}" for value in (*seconds, sum(seconds[1:]))]]
