"""Timings: steps, pieces, lookups, quantizers, input, start, tokenizers, sampling, saves, PyTorch.

python -m mq_jax.bench [--part=step|operations|unroll|pieces|lookup|quantizers|input|startup
    |tokenizer|sampling|checkpoint|peers] [--config=configs/X.py]
python -m mq_jax.bench --part=hypergradients --workdir=DIR [--step=N] [--batches=N]

`operations` profiles steps on a CPU and tells which groups of operations their time goes to.
`hypergradients` times nothing: at a checkpoint of a run it compares the kinds of hyper-gradient, by
norms, by cosines with one another and between independent batches, and by the codes that flip.

On one core unless --cores says otherwise. Steps are interleaved in one process, so that a
machine whose speed drifts slows them all alike: read the ratios.
"""

import os
import pathlib
import sys

if __name__ == "__main__":
    # Before the slow imports: Ctrl-C in them is no reason for a traceback.
    from mq_jax.devices.interrupt import end_quietly
    from mq_jax.devices.memory import keep_memory

    end_quietly()
    # Before them, too: it may begin the program once more.
    keep_memory()

from absl import flags
from ml_collections import config_flags

from mq_jax import commandline
from mq_jax.bench.names import ESTIMATORS, PARTS
from mq_jax.devices.memory import collect_seldom
from mq_jax.terminal.escaping import visible
from mq_jax.terminal.streams import protect_streams

DEFAULT_CONFIG = "configs/cifar10_mqvae.py"
OF_A_RUN = "hypergradients"
# Their children need memory of the same GPU, most of which JAX would take for this process.
_WITH_CHILDREN = ("startup", "tokenizer")

# Without a default: it would be read before a run's folder can stand for it.
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, f"The experiment; absent: {DEFAULT_CONFIG}.", lock_config=True
)
_PART = flags.DEFINE_enum("part", "step", PARTS, "What to measure.")
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
    "step: hyper-gradients beside the joint step; operations: those whose steps are profiled; "
    "quantizers: kinds beside vq; hypergradients: those that are compared; divided by commas; "
    "empty: all, of operations the configuration's own.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "hypergradients: folder of a run.")
_STEP = flags.DEFINE_integer(
    "step", None, "hypergradients: this checkpoint instead of the best.", lower_bound=0
)
_BATCHES = flags.DEFINE_integer(
    "batches", 4, "hypergradients: pairs of batches, of which cosines are means.", lower_bound=2
)
_OUTPUT = flags.DEFINE_string(
    *("output", ""),
    "File for the tables, as JSON, written anew with each row; empty: none. One that is there is "
    "replaced.",
)
_CORES = flags.DEFINE_integer("cores", 1, "CPU cores to run on.", lower_bound=1)
_FLAGS = (
    *(_PART, _CONFIG, _ROUNDS, _STRAIGHT_THROUGH, _KINDS),
    *(_WORKDIR, _STEP, _BATCHES, _OUTPUT, _CORES),
)


def run() -> None:
    """Parses the command line and runs one part."""
    protect_streams()
    commandline.answer_help(__doc__, _FLAGS)
    collect_seldom()
    # Only now: help needs none of JAX.
    from mq_jax.bench import hypergradients
    from mq_jax.bench.parts import kinds_named, run_part, use_cores
    from mq_jax.devices.cache import use_compilation_cache
    from mq_jax.devices.places import local_path
    from mq_jax.training.taking import take_sizes
    from mq_jax.training.validate import validate

    try:
        folder = _folder()
        _, *rest = _parsed(folder)
        if rest:
            raise commandline.UsageError(f"{rest[0]!r} is no flag; all arguments are flags.")
        if folder is not None:
            hypergradients.require_outer_level(_CONFIG.value)
        take_sizes(_CONFIG.value)
        validate(_CONFIG.value)
        kinds = kinds_named(_KINDS.value, _PART.value, _CONFIG.value, _STRAIGHT_THROUGH.value)
        output = local_path(_OUTPUT.value, "--output") if _OUTPUT.value else None
        if _PART.value in _WITH_CHILDREN:
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        use_cores(_CORES.value)
        use_compilation_cache()
        run_part(
            _PART.value,
            _CONFIG.value,
            rounds=_ROUNDS.value,
            straight_through=_STRAIGHT_THROUGH.value,
            cores=_CORES.value,
            kinds=kinds,
            subject=folder and hypergradients.Subject(folder, _STEP.value, _BATCHES.value),
            output=output,
        )
    except (commandline.UsageError, ValueError, OSError) as error:
        sys.exit(f"error: {visible(error)}")


def _folder() -> pathlib.Path | None:
    """The run that is measured, where the part is of one."""
    from mq_jax.devices.places import local_path

    given = {name: commandline.flag_value(sys.argv, name) for name in ("workdir", "config")}
    if commandline.flag_value(sys.argv, "part") != OF_A_RUN:
        if given["workdir"] is not None:
            raise commandline.UsageError(f"--workdir is of --part={OF_A_RUN}; leave it out.")
        return None
    if not given["workdir"]:
        raise commandline.UsageError(f"--part={OF_A_RUN} is of a run; give its --workdir.")
    if given["config"] is not None:
        raise commandline.UsageError(
            f"--config is not of --part={OF_A_RUN}, which takes that of the run; give single "
            "fields, --config.data.dir=DIR say."
        )
    return local_path(given["workdir"], "--workdir")


def _parsed(folder: pathlib.Path | None) -> list[str]:
    """Parses the command line; the arguments that are no flags, the program's name first."""
    if folder is None:
        named = commandline.flag_value(sys.argv, "config") is not None
        return commandline.parse(
            sys.argv if named else commandline.with_config(sys.argv, DEFAULT_CONFIG)
        )
    from mq_jax.runs import stored, workdir

    # Here, where its own line says what is wrong; loading would wrap it.
    workdir.read_config(folder)
    return commandline.parse(sys.argv, stored=(stored.__file__, str(folder)))


if __name__ == "__main__":
    run()
