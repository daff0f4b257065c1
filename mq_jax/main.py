"""Trains and evaluates image tokenizers by Meta-Quantization: flags, and one dispatch.

python -m mq_jax.main --config=configs/photos_mqvae.py --workdir=DIR [--mode=train|evaluate]
python -m mq_jax.main --config=configs/photos_mqvae.py --mode=plan [--devices=N] [--images=N]

Several processes find each other by the environment; mq_jax/distributed.py says how.
"""

import math
import os
import pathlib
import shlex
import sys
import traceback

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags
from PIL import Image

from mq_jax import commandline, console, distributed, inputs, workdir
from mq_jax.agreement import FailedElsewhere, together
from mq_jax.build import build, total_steps
from mq_jax.checkpoint import Checkpoints
from mq_jax.evaluate import Evaluator
from mq_jax.perceptual import load_frozen
from mq_jax.plan import make_plan, use_virtual_devices
from mq_jax.plan_tables import print_plan
from mq_jax.program import checkpoint_target
from mq_jax.sharding import make_mesh
from mq_jax.train import monitored, train
from mq_jax.validate import validate
from mq_jax.writers import read_metrics

MODES = ("train", "evaluate", "plan")

# These change where a run reads, where it computes and how fast, never what it computes.
FREE_FIELDS = (
    *("data.dir", "data.threads", "data.workers", "perceptual.dir"),
    *("mesh", "codebook.shard_lookup"),
)

# An evaluation needs the model of the run; it may look at other images.
FREE_IN_EVALUATION = (
    *("seed", "train", "inner", "outer", "disc", "mesh", "data", "eval"),
    *("perceptual.dir", "codebook.shard_lookup"),
)

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, for all its outputs.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_INTERRUPTED_CODE = flags.DEFINE_integer(
    "interrupted_code",
    0,
    "Exit code of a run that a signal ended, for a scheduler that shall start it again.",
    lower_bound=0,
    upper_bound=127,
)
_DEVICES = flags.DEFINE_integer(
    "devices", 0, "plan: devices; 0: as many as config.mesh says, or 8.", lower_bound=0
)
_IMAGES = flags.DEFINE_integer(
    "images", 0, "plan: images that the inner level draws from; 0: look at the data.", lower_bound=0
)
_PEAK = flags.DEFINE_float(
    "peak_tflops", 0.0, "plan: TFLOP/s of a further kind of device.", lower_bound=0.0
)
_COMPILE = flags.DEFINE_bool(
    "compile", True, "plan: whether to compile, for temporary memory and collectives."
)
_FLAGS = (
    *(_CONFIG, _WORKDIR, _MODE, _INTERRUPTED_CODE),
    *(_DEVICES, _IMAGES, _PEAK, _COMPILE),
)

_COLUMNS = {
    "eval/mse": ("MSE on [-1, 1]", "{:.4f}"),
    "eval/psnr": ("PSNR, dB", "{:.2f}"),
    "eval/lpips": ("LPIPS", "{:.4f}"),
    "eval/usage": ("usage", "{:.1%}"),
    "eval/perplexity": ("perplexity", "{:.1f}"),
}


def main(argv: list[str]) -> int:
    """Runs one mode.

    Args:
      argv: the program's name and the arguments that are no flags.

    Returns:
      The exit code.
    """
    _use_compilation_cache()
    try:
        if len(argv) > 1:
            raise commandline.UsageError(f"{argv[1]!r} is no flag; all arguments are flags.")
        if _MODE.value == "plan":
            return _plan()
        if not _WORKDIR.value:
            raise commandline.UsageError("--workdir is missing; give the folder of the run.")
        folder = pathlib.Path(_WORKDIR.value).expanduser()
        if _MODE.value == "train":
            return _train(folder)
        return _evaluate(folder)
    except KeyboardInterrupt:
        logging.error("Stopped at once; the same command goes on from the last checkpoint.")
        return 130
    except (commandline.UsageError, ValueError, OSError, FloatingPointError) as error:
        # What is not finite is so in all processes; the first one says it for all.
        if not (isinstance(error, FloatingPointError) and jax.process_index()):
            # The line is for the user; the log file keeps the traceback for the maintainer.
            logging.error("error: %s", error)
        logging.debug("traceback", exc_info=True)
        return 1
    except FailedElsewhere as error:
        _report_failure_elsewhere(error)
        return 1


def _train(folder: pathlib.Path) -> int:
    """Checks everything that can be checked, claims the workdir, trains."""
    with together():
        config = _given_config()
        validate(config)
        make_mesh(config.mesh.data, config.mesh.fsdp)  # Raises where the devices make no such mesh.
        inputs.require_divisible(config)
        sources, eval_source = inputs.open_training(config), inputs.open_evaluation(config)
        total_steps(config, len(sources.autoencoder))  # Raises where the epochs make no batch.
        frozen = load_frozen(config)
    with together():
        if jax.process_index() == 0:
            workdir.claim(folder, config.to_dict(), FREE_FIELDS)
            console.log_to_file(folder / "train.log")
    ended = train(config, sources, eval_source, frozen, folder)
    if ended.startswith("SIG"):
        logging.info("%s: saved. To go on:\n  %s", ended, _command())
        return _INTERRUPTED_CODE.value
    if jax.process_index() == 0:
        _print_summary(folder, ended, monitored(config))
    return 0


def _evaluate(folder: pathlib.Path) -> int:
    """Evaluates the best checkpoint of a run."""
    with together():
        config = stored = ConfigDict(workdir.read_config(folder))
        if _CONFIG.value is not None:
            config = _given_config()
            workdir.claim(folder, config.to_dict(), FREE_IN_EVALUATION)
        else:
            # On the devices of this machine, which need not be those of the run.
            config.mesh.update(data=0, fsdp=math.gcd(config.mesh.fsdp, jax.device_count()))
        validate(config)
        inputs.require_divisible(config, ["eval"])
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
        source = inputs.open_evaluation(config)
        weights = load_frozen(config, training=False).evaluation
        # What may differ from the run: where it computes.
        stored.mesh, stored.codebook.shard_lookup = config.mesh, config.codebook.shard_lookup
    built = build(stored, 1, mesh)
    monitor = monitored(stored)
    with Checkpoints(folder / "checkpoints", monitor=monitor, read_only=True) as saved:
        step = saved.best_step if saved.best_step is not None else saved.latest_step
        if step is None:
            raise ValueError(f"{saved.directory} has no checkpoint; train first.")
        restored = saved.restore(checkpoint_target(stored, built, mesh), step)
    evaluator = Evaluator(config, built.objective, source, mesh, weights)
    evaluation = evaluator.run(restored.tree["state"])
    if jax.process_index():
        return 0
    title = f"step {step}, {config.data.source} {config.data.eval_split}, {len(source)} images"
    console.print_table(title, *_table({f"step {step}": evaluation.scalars}))
    path = folder / "evaluation.png"
    Image.fromarray(evaluation.picture).save(path)
    print(f"Originals over reconstructions: {path}")
    return 0


def _plan() -> int:
    """Tells what a run would take; needs neither data nor an accelerator."""
    config = _given_config()
    validate(config)
    fsdp = config.mesh.fsdp
    devices = _DEVICES.value or config.mesh.data * fsdp or fsdp * max(8 // fsdp, 1)
    steps = _planned_steps(config)
    # The time that compilation takes is told, too.
    jax.config.update("jax_enable_compilation_cache", False)
    use_virtual_devices(devices)
    print_plan(make_plan(config, devices, compiled=_COMPILE.value), steps, _PEAK.value)
    return 0


def _planned_steps(config: ConfigDict) -> int:
    """Steps of the run; epochs need the number of images."""
    if config.train.steps or _IMAGES.value:
        return total_steps(config, _IMAGES.value)
    try:
        images = len(inputs.open_training(config).autoencoder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"config.train.epochs is {config.train.epochs}, of how many images is not known; give "
            f"--images=N, as the data is not there: {error}"
        ) from error
    return total_steps(config, images)


def _given_config() -> ConfigDict:
    """The experiment with its overrides."""
    if _CONFIG.value is None:
        raise commandline.UsageError("--config is missing; give an experiment, configs/X.py.")
    return _CONFIG.value


def _print_summary(folder: pathlib.Path, ended: str, monitor: str) -> None:
    """The table at the end of a training run, and where to look."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if monitor in row]
    pictures = sorted((folder / "reconstructions").glob("*.png"))
    # Of equals the later, as the checkpoints have it.
    best = min(rows, key=lambda row: (row[monitor], -row["step"]))
    chosen = {"start": rows[0], "end": rows[-1], "best": best}
    named = {f"{name} (step {row['step']})": row for name, row in chosen.items()}
    console.print_table(f"Training {ended}: {folder}", *_table(named))
    print(f"Originals over reconstructions: {pictures[-1]}")
    print(f"Curves: {sys.executable} -m tensorboard.main --logdir {folder / 'tensorboard'}")


def _table(rows: dict[str, dict]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of evaluations by name."""
    known = {
        key: column for key, column in _COLUMNS.items() if all(key in r for r in rows.values())
    }
    columns = ["", *[head for head, _ in known.values()]]
    cells = [
        [name, *[form.format(row[key]) for key, (_, form) in known.items()]]
        for name, row in rows.items()
    ]
    return columns, cells


def _command() -> str:
    """The command that was given, to be given again."""
    return shlex.join([sys.executable, "-m", "mq_jax.main", *sys.argv[1:]])


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the environment says where or not to."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "mq_jax"))


def _join() -> None:
    """Finds the other processes of the run, if the environment names some."""
    cluster = distributed.find_cluster(os.environ)
    if cluster:
        console.log_to_terminal(cluster.index)
        distributed.initialize(cluster)


def _report_failure_elsewhere(error: FailedElsewhere) -> None:
    """Repeats in the log of the first process what another one says in its own."""
    if jax.process_index() == 0:
        logging.error("error: %s", error)


def run() -> None:
    """Parses the command line and runs the program."""
    commandline.answer_help(__doc__, _FLAGS)
    console.log_to_terminal()
    orderly = {0}
    try:
        _join()
        with together():
            arguments = commandline.parse(sys.argv)
        orderly.add(_INTERRUPTED_CODE.value)
        code = main(arguments)
    except (commandline.UsageError, ValueError) as error:
        logging.error("error: %s", error)
        code = 1
    except ConnectionError as error:
        logging.error("error: %s", error)
        code = 1
    except FailedElsewhere as error:
        _report_failure_elsewhere(error)
        code = 1
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        logging.error("error: failed as above; if another process did so before, that is why.")
        # Most often a process was lost, with its node: the scheduler shall start all again.
        distributed.abandon(_INTERRUPTED_CODE.value or 1)
    if code not in orderly and jax.distributed.is_initialized():
        distributed.abandon(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
