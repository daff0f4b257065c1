"""Trains, evaluates and exports image tokenizers: flags, and one dispatch.

python -m mq_jax.main --config=configs/photos_mqvae.py --workdir=DIR
python -m mq_jax.main --workdir=DIR --mode=evaluate|export|report
python -m mq_jax.main --mode=evaluate --compare DIR DIR ...
python -m mq_jax.main --mode=report DIR DIR ... --output=FILE
python -m mq_jax.main --config=configs/photos_mqvae.py --mode=plan [--devices=N] [--images=N]

Several processes find each other by the environment; mq_jax/devices/distributed.py says how.
"""

import os
import pathlib
import shlex
import sys
import traceback
from collections.abc import Sequence

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mq_jax import commandline
from mq_jax.devices import distributed
from mq_jax.devices.agreement import FailedElsewhere, together
from mq_jax.devices.cache import use_compilation_cache
from mq_jax.models import inception_weights
from mq_jax.modes.evaluation import compare_evaluations, run_evaluation
from mq_jax.modes.exporting import run_export
from mq_jax.modes.planning import plan
from mq_jax.modes.reporting import run_report
from mq_jax.modes.training import run_training
from mq_jax.terminal import console

MODES = ("train", "evaluate", "export", "report", "plan")

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, for all its outputs.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_METRICS = flags.DEFINE_string(
    "metrics",
    "all",
    "evaluate: of ssim, lpips_alex, lpips_vgg and fid or frechet_vgg, divided by commas.",
)
_WEIGHTS_DIR = flags.DEFINE_string(
    "weights_dir", "", "Folder of the Inception weights for fid; empty: this program's cache."
)
_DOWNLOAD_WEIGHTS = flags.DEFINE_bool(
    "download_weights", False, "Fetches the Inception weights, 96 MB, where they are missing."
)
_COMPARE = flags.DEFINE_bool(
    "compare", False, "evaluate: puts the evaluations of the folders that follow side by side."
)
_UNLIKE = flags.DEFINE_bool("unlike", False, "evaluate --compare: also where the protocols differ.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "export: replaces an export that is there.")
_OUTPUT = flags.DEFINE_string(
    "output", "", "report: the file; empty: report.html in the folder of the run."
)
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
    *(_CONFIG, _WORKDIR, _MODE, _METRICS, _WEIGHTS_DIR, _DOWNLOAD_WEIGHTS, _COMPARE, _UNLIKE),
    *(_OVERWRITE, _OUTPUT, _INTERRUPTED_CODE, _DEVICES, _IMAGES, _PEAK, _COMPILE),
)


def main(argv: list[str]) -> int:
    """Runs one mode.

    Args:
      argv: the program's name and the arguments that are no flags.

    Returns:
      The exit code.
    """
    use_compilation_cache()
    try:
        return _dispatch(argv[1:])
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


def _dispatch(folders: Sequence[str]) -> int:
    """Runs the mode that was asked for."""
    mode = _MODE.value
    takes_folders = mode == "report" or (mode == "evaluate" and _COMPARE.value)
    if folders and not takes_folders:
        raise commandline.UsageError(f"{folders[0]!r} is no flag; all arguments are flags.")
    if mode == "plan":
        plan(
            _given_config(),
            devices=_DEVICES.value,
            images=_IMAGES.value,
            peak_tflops=_PEAK.value,
            compiled=_COMPILE.value,
        )
    elif mode == "report":
        run_report([_workdir(), *folders] if _WORKDIR.value else folders, _OUTPUT.value)
    elif mode == "evaluate" and _COMPARE.value:
        compare_evaluations(folders, unlike_too=_UNLIKE.value)
    elif mode == "export":
        run_export(_workdir(), overwrite=_OVERWRITE.value)
    else:
        return _compute(mode)
    return 0


def _compute(mode: str) -> int:
    """Trains or evaluates, on all processes of the run."""
    folder, weights_dir = _workdir(), _WEIGHTS_DIR.value
    with together():
        if _DOWNLOAD_WEIGHTS.value and jax.process_index() == 0:
            inception_weights.download(weights_dir)
    if mode == "evaluate":
        metrics = _METRICS.value
        run_evaluation(folder, _CONFIG.value, metrics=metrics, weights_dir=weights_dir)
        return 0
    ended = run_training(_given_config(), folder, weights_dir)
    if ended.startswith("SIG"):
        logging.info("%s: saved. To go on:\n  %s", ended, _command())
        return _INTERRUPTED_CODE.value
    return 0


def _workdir() -> pathlib.Path:
    """The folder of the run."""
    if not _WORKDIR.value:
        raise commandline.UsageError("--workdir is missing; give the folder of the run.")
    return pathlib.Path(_WORKDIR.value).expanduser()


def _given_config() -> ConfigDict:
    """The experiment with its overrides."""
    if _CONFIG.value is None:
        raise commandline.UsageError("--config is missing; give an experiment, configs/X.py.")
    return _CONFIG.value


def _command() -> str:
    """The command that was given, to be given again."""
    return shlex.join([sys.executable, "-m", "mq_jax.main", *sys.argv[1:]])


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
