"""From a command line to one mode: several processes joined, errors told in one line."""

import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Sequence

import jax
from absl import flags, logging

from mq_jax import commandline
from mq_jax.devices import distributed
from mq_jax.devices.agreement import FailedElsewhere, together
from mq_jax.devices.cache import use_compilation_cache
from mq_jax.devices.determinism import ask_for_determinism
from mq_jax.devices.interrupt import Stopped, stopping
from mq_jax.devices.places import local_path
from mq_jax.devices.platforms import require_platform
from mq_jax.devices.reading import end_within
from mq_jax.modes import given
from mq_jax.modes.taken import require_taken
from mq_jax.runs.stages import is_prior
from mq_jax.terminal import console
from mq_jax.terminal.escaping import shell_word

# At the end; a thread that hangs in a read would make Python wait for ever.
_ORDERLY_SECONDS = 5

# What the same command does after it was stopped at once, of the modes that keep what was done.
_GOES_ON = {
    "train": "goes on from the last checkpoint",
    "tokens": "goes on where it was",
    "sample": "goes on where it was",
}

# Those of mq_jax.main.
FLAGS = flags.FLAGS


def run_program() -> int:
    """Parses the command line of mq_jax.main and runs its mode, on all processes of the run.

    Returns:
      The exit code.
    """
    console.log_to_terminal()
    orderly = {0}
    try:
        arguments, unreadable = _parsed()
        # XLA reads its flags when a backend starts, which joining does.
        if unreadable is None and _is_deterministic():
            ask_for_determinism()
        _join()
        with together():
            if unreadable is not None:
                raise unreadable
        orderly.add(FLAGS.interrupted_code)
        code = _run_mode(arguments[1:])
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
        distributed.abandon(FLAGS.interrupted_code or 1)
    if code not in orderly and jax.distributed.is_initialized():
        distributed.abandon(code)
    return code


def _parsed() -> tuple[list[str], Exception | None]:
    """Arguments that are no flags, or why there are none, for all processes to say together."""
    try:
        return given.parse(sys.argv), None
    except Exception as error:
        return [], error


def _is_deterministic() -> bool:
    """Whether the configuration, that of the run where none was given, asks for it."""
    config = FLAGS.config
    return config is not None and "deterministic" in config and config["deterministic"] is True


def _run_mode(folders: Sequence[str]) -> int:
    """Runs one mode; returns the exit code, and turns what a user can mend into one line."""
    use_compilation_cache()
    try:
        with stopping():
            return _dispatch(folders)
    except Stopped as signalled:
        return _stopped(str(signalled))
    except KeyboardInterrupt:
        logging.error("Stopped at once; the same command %s.", _does_again())
        end_within(_ORDERLY_SECONDS, 130)
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


def _stopped(name: str) -> int:
    """Tells of a signal outside the steps of a training; returns the exit code."""
    if FLAGS.mode == "train":
        logging.info("%s: stopped; what was saved is there. To go on:\n  %s", name, _command())
        code = FLAGS.interrupted_code
    else:
        logging.error("%s: stopped at once; the same command %s.", name, _does_again())
        code = FLAGS.interrupted_code or 128 + signal.Signals[name]
    if jax.distributed.is_initialized():
        distributed.abandon(code)
    return code


def _does_again() -> str:
    """What the same command will do."""
    return _GOES_ON.get(FLAGS.mode, "starts again")


def _dispatch(folders: Sequence[str]) -> int:
    """Runs the mode that was asked for, whose file alone is loaded."""
    mode = FLAGS.mode
    require_taken(FLAGS, folders)
    if mode == "plan":
        from mq_jax.modes.lengths import image_count
        from mq_jax.modes.planning import plan

        asked = {"devices": FLAGS.devices, "images": image_count(FLAGS.images, mode)}
        asked |= {"peak_tflops": FLAGS.peak_tflops, "compiled": FLAGS.compile}
        plan(given.experiment(FLAGS), **asked)
    elif mode == "report":
        from mq_jax.modes.reporting import run_report

        run_report([_workdir(), *folders] if FLAGS.workdir else folders, FLAGS.output)
    elif mode == "evaluate" and FLAGS.compare:
        from mq_jax.modes.comparing import compare_evaluations

        compare_evaluations(folders, unlike_too=FLAGS.unlike)
    elif mode == "prepare":
        from mq_jax.modes.preparing import run_preparation

        run_preparation(FLAGS)
    elif mode == "compare":
        return _compare()
    elif mode in ("train", "evaluate"):
        return _compute(mode)
    else:
        _derive(mode)
    return 0


def _derive(mode: str) -> None:
    """Makes of what was trained what is asked: an export, tokens, samples; or imports it."""
    folder, typed = _workdir(), commandline.overridden(sys.argv)
    if mode == "export":
        from mq_jax.modes.exporting import run_export

        require_platform()
        formats = [name.strip() for name in FLAGS.formats.split(",") if name.strip()]
        run_export(folder, overwrite=FLAGS.overwrite, step=FLAGS.step, formats=formats)
    elif mode == "import":
        from mq_jax.modes import importing

        asked = importing.asked_of(FLAGS)
        require_platform()
        importing.run_import(*asked, given.experiment(FLAGS), folder, typed)
    elif mode == "tokens":
        from mq_jax.modes.tokensets import asked_of, run_tokens

        require_platform()
        run_tokens(folder, FLAGS.config, asked_of(FLAGS), typed)
    else:
        from mq_jax.modes import sampling

        asked = sampling.asked_of(FLAGS)
        require_platform()
        sampling.run_sampling(folder, asked)


def _compare() -> int:
    """Trains the runs of a suite and writes the tables, or the tables alone."""
    from mq_jax.modes.lengths import image_count
    from mq_jax.modes.suite import Asked, compare

    fields = FLAGS.suite, given.words(sys.argv), FLAGS.shard, FLAGS.reference
    fields += FLAGS.dry_run, FLAGS.count_flops, image_count(FLAGS.images, FLAGS.mode)
    bad, signalled = compare(_workdir(), Asked(*fields))
    if signalled:
        logging.info("%s: stopped. To go on:\n  %s", signalled, _command())
        return FLAGS.interrupted_code
    return 1 if bad else 0


def _compute(mode: str) -> int:
    """Trains or evaluates, on all processes of the run."""
    folder, weights_dir = None if FLAGS.samples else _workdir(), FLAGS.weights_dir
    typed = commandline.overridden(sys.argv)
    local_path(weights_dir, "--weights_dir")
    require_platform()
    with together():
        if FLAGS.download_weights and jax.process_index() == 0:
            from mq_jax.models import inception_weights

            inception_weights.download(weights_dir)
    asked = {"metrics": FLAGS.metrics, "weights_dir": weights_dir, "typed": typed}
    if FLAGS.samples:
        from mq_jax.modes import sampled

        sampled.run_sample_evaluation(FLAGS.config, sampled.asked_of(FLAGS), **asked)
        return 0
    if mode == "evaluate":
        from mq_jax.modes.evaluation import Wanted, run_evaluation

        images = local_path(FLAGS.images, "--images") if FLAGS.images else None
        wanted = Wanted(FLAGS.step, FLAGS.name, images, FLAGS.size)
        run_evaluation(folder, given.to_evaluate(FLAGS, typed), wanted, **asked)
        return 0
    return _train(folder, weights_dir, typed)


def _train(folder: pathlib.Path, weights_dir: str, typed: Sequence[str]) -> int:
    """Trains either stage; returns the exit code."""
    config, accept = given.experiment(FLAGS), {"accept_changed_data": FLAGS.accept_changed_data}
    if is_prior(config):
        from mq_jax.modes.priors import run_prior_training

        ended = run_prior_training(config, folder, **accept)
    else:
        from mq_jax.modes.training import run_training

        ended = run_training(config, folder, weights_dir, typed=typed, **accept)
    code = FLAGS.interrupted_code if ended.startswith("SIG") else 0
    if ended.startswith("SIG"):
        logging.info("%s: saved. To go on:\n  %s", ended, _command())
    if not jax.distributed.is_initialized():
        # All is saved; what reads ahead may hang. Of several processes, some may end later.
        end_within(_ORDERLY_SECONDS, code)
    return code


def _workdir() -> pathlib.Path:
    """The folder of the run."""
    if not FLAGS.workdir:
        raise commandline.UsageError("--workdir is missing; give the folder of the run.")
    return local_path(FLAGS.workdir, "--workdir")


def _command() -> str:
    """The command that was given, to be given again."""
    return " ".join(map(shell_word, [sys.executable, "-m", "mq_jax.main", *sys.argv[1:]]))


def _join() -> None:
    """Finds the other processes of the run, if the environment names some."""
    cluster = distributed.find_cluster(os.environ)
    if cluster:
        console.log_to_terminal(cluster.index)
        distributed.initialize(cluster)
        require_platform()


def _report_failure_elsewhere(error: FailedElsewhere) -> None:
    """Repeats in the log of the first process what another one says in its own."""
    if jax.process_index() == 0:
        logging.error("error: %s", error)
