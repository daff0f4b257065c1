"""Timings: train steps and their pieces, lookups, input, start, tokenizers.

python -m mq_jax.bench [--part=step|pieces|lookup|input|startup|tokenizer] [--config=configs/X.py]

On one core unless --cores says otherwise. Steps are interleaved in one process, so that a
machine whose speed drifts slows them all alike: read the ratios.
"""

import os
import sys

from absl import flags
from ml_collections import config_flags

from mq_jax import commandline
from mq_jax.bench.input import bench_input
from mq_jax.bench.lookup import bench_lookup
from mq_jax.bench.pieces import bench_pieces
from mq_jax.bench.startup import bench_startup
from mq_jax.bench.step import bench_step
from mq_jax.bench.tokenizer import bench_tokenizer
from mq_jax.training.validate import validate

DEFAULT_CONFIG = "configs/cifar10_mqvae.py"
PARTS = ("step", "pieces", "lookup", "input", "startup", "tokenizer")

_CONFIG = config_flags.DEFINE_config_file(
    "config", DEFAULT_CONFIG, "The experiment.", lock_config=True
)
_PART = flags.DEFINE_enum("part", "step", PARTS, "What to time.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Interleaved rounds; medians count.", lower_bound=1)
_STRAIGHT_THROUGH = flags.DEFINE_enum(
    "straight_through",
    "all",
    ("all", "encoder", "encoder-and-codewords"),
    "Estimator of the train steps that are timed.",
)
_CORES = flags.DEFINE_integer("cores", 1, "CPU cores to run on.", lower_bound=1)


def run() -> None:
    """Parses the command line and runs one part."""
    commandline.answer_help(__doc__, (_PART, _CONFIG, _ROUNDS, _STRAIGHT_THROUGH, _CORES))
    try:
        commandline.parse(sys.argv, DEFAULT_CONFIG)
        validate(_CONFIG.value)
    except (commandline.UsageError, ValueError) as error:
        sys.exit(f"error: {error}")
    # Before the backend starts: it takes as many threads as it is allowed cores.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _CORES.value])
    config, rounds = _CONFIG.value, _ROUNDS.value
    parts = {
        "step": lambda: bench_step(config, rounds, _STRAIGHT_THROUGH.value),
        "pieces": lambda: bench_pieces(config, rounds),
        "lookup": lambda: bench_lookup(config, rounds),
        "input": lambda: bench_input(config, _CORES.value),
        "startup": bench_startup,
        "tokenizer": lambda: bench_tokenizer(config, rounds),
    }
    parts[_PART.value]()


if __name__ == "__main__":
    run()
