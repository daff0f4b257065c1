"""Timings: steps, pieces, lookups, quantizers, input, start, tokenizers, sampling, saves, PyTorch.

python -m mq_jax.bench [--part=step|unroll|pieces|lookup|quantizers|input|startup|tokenizer
    |sampling|checkpoint|peers] [--config=configs/X.py]

On one core unless --cores says otherwise. Steps are interleaved in one process, so that a
machine whose speed drifts slows them all alike: read the ratios.
"""

import sys

if __name__ == "__main__":
    # Before the slow imports: Ctrl-C in them is no reason for a traceback.
    from mq_jax.devices.interrupt import end_quietly

    end_quietly()

from absl import flags
from ml_collections import config_flags

from mq_jax import commandline
from mq_jax.devices.memory import collect_seldom, keep_memory
from mq_jax.terminal.escaping import visible
from mq_jax.terminal.streams import protect_streams

DEFAULT_CONFIG = "configs/cifar10_mqvae.py"
PARTS = (
    "step",
    "unroll",
    "pieces",
    "lookup",
    "quantizers",
    "input",
    "startup",
    "tokenizer",
    "sampling",
    "checkpoint",
    "peers",
)

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
_KINDS = flags.DEFINE_string(
    "kinds",
    "",
    "step: hyper-gradients beside the joint step, divided by commas; empty: all.",
)
_OUTPUT = flags.DEFINE_string(
    "output", "", "File for the tables, as JSON; empty: none. One that is there is replaced."
)
_CORES = flags.DEFINE_integer("cores", 1, "CPU cores to run on.", lower_bound=1)
_FLAGS = (_PART, _CONFIG, _ROUNDS, _STRAIGHT_THROUGH, _KINDS, _OUTPUT, _CORES)


def run() -> None:
    """Parses the command line and runs one part."""
    protect_streams()
    commandline.answer_help(__doc__, _FLAGS)
    # Before the libraries below start threads.
    keep_memory()
    collect_seldom()
    # Only now: help needs none of JAX.
    from mq_jax.bench.parts import run_part, use_cores
    from mq_jax.bench.step import kinds_named
    from mq_jax.devices.places import local_path
    from mq_jax.training.taking import take_sizes
    from mq_jax.training.validate import validate

    try:
        _, *rest = commandline.parse(sys.argv, DEFAULT_CONFIG)
        if rest:
            raise commandline.UsageError(f"{rest[0]!r} is no flag; all arguments are flags.")
        take_sizes(_CONFIG.value)
        validate(_CONFIG.value)
        kinds = kinds_named(_KINDS.value)
        output = local_path(_OUTPUT.value, "--output") if _OUTPUT.value else None
        use_cores(_CORES.value)
    except (commandline.UsageError, ValueError) as error:
        sys.exit(f"error: {visible(error)}")
    run_part(
        _PART.value,
        _CONFIG.value,
        rounds=_ROUNDS.value,
        straight_through=_STRAIGHT_THROUGH.value,
        cores=_CORES.value,
        kinds=kinds,
        output=output,
    )


if __name__ == "__main__":
    run()
