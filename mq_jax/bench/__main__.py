"""Timings: steps, their pieces, lookups, quantizers, input, start, tokenizers, sampling, PyTorch.

python -m mq_jax.bench [--part=step|unroll|pieces|lookup|quantizers|input|startup|tokenizer
    |sampling|peers] [--config=configs/X.py]

On one core unless --cores says otherwise. Steps are interleaved in one process, so that a
machine whose speed drifts slows them all alike: read the ratios.
"""

import os
import sys

if __name__ == "__main__":
    # Before the slow imports: Ctrl-C in them is no reason for a traceback.
    from mq_jax.devices.interrupt import end_quietly

    end_quietly()

from absl import flags
from ml_collections import config_flags

from mq_jax import commandline
from mq_jax.bench.names import ESTIMATORS, PARTS
from mq_jax.devices.memory import collect_seldom, keep_memory
from mq_jax.terminal.escaping import visible
from mq_jax.terminal.streams import protect_streams

DEFAULT_CONFIG = "configs/cifar10_mqvae.py"
# Their children need memory of the same GPU, most of which JAX would take for this process.
_WITH_CHILDREN = ("startup", "tokenizer")

_CONFIG = config_flags.DEFINE_config_file(
    "config", DEFAULT_CONFIG, "The experiment.", lock_config=True
)
_PART = flags.DEFINE_enum("part", "step", PARTS, "What to time.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Interleaved rounds; medians count.", lower_bound=1)
_STRAIGHT_THROUGH = flags.DEFINE_enum(
    "straight_through",
    "all",
    ESTIMATORS,
    "Estimator of the train steps that are timed; all: each hyper-gradient with the first, and "
    "those whose cost another changes.",
)
_KINDS = flags.DEFINE_string(
    "kinds",
    "",
    "step: hyper-gradients beside the joint step; quantizers: kinds beside vq; divided by commas; "
    "empty: all.",
)
_OUTPUT = flags.DEFINE_string(
    *("output", ""),
    "File for the tables, as JSON, written anew with each row; empty: none. One that is there is "
    "replaced.",
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
    from mq_jax.bench.parts import kinds_named, run_part, use_cores
    from mq_jax.devices.cache import use_compilation_cache
    from mq_jax.devices.places import local_path
    from mq_jax.training.taking import take_sizes
    from mq_jax.training.validate import validate

    try:
        _, *rest = commandline.parse(sys.argv, DEFAULT_CONFIG)
        if rest:
            raise commandline.UsageError(f"{rest[0]!r} is no flag; all arguments are flags.")
        take_sizes(_CONFIG.value)
        validate(_CONFIG.value)
        kinds = kinds_named(_KINDS.value, _PART.value, _CONFIG.value, _STRAIGHT_THROUGH.value)
        output = local_path(_OUTPUT.value, "--output") if _OUTPUT.value else None
        if _PART.value in _WITH_CHILDREN:
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        use_cores(_CORES.value)
        use_compilation_cache()
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
