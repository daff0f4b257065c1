"""Which configuration a command line asks for: an experiment's, or that of a run's folder."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import ConfigDict

from mq_jax import commandline
from mq_jax.devices.places import local_path
from mq_jax.priors.checks import unused_fields
from mq_jax.runs import stored
from mq_jax.runs.workdir import read_config
from mq_jax.suites import read_suite
from mq_jax.training.taking import take_sizes

_FILE = "config.json"

# What an imported tokenizer is evaluated on, and trained on further, where nothing else is named.
_IMPORTED = "configs/imported.py"


def parse(argv: Sequence[str]) -> list[str]:
    """Parses a command line in which a run's folder may stand for its experiment.

    `--config=DIR/config.json` is the configuration of a run; without a --config it is that of
    --workdir, where a run is there. Fields that are given beside a suite are of its experiment.

    Args:
      argv: the program's name and its arguments.

    Returns:
      Arguments that are no flags.

    Raises:
      UsageError: as commandline.parse's, or the config.json that is named is not there.
      ValueError: a config.json is damaged, or the place is no path of this machine.
    """
    if commandline.flag_value(argv, "mode") == "compare":
        return _parse_suite(argv)
    if commandline.flag_value(argv, "mode") == "import":
        return commandline.parse(_of_import(argv))
    folder = _folder(argv)
    if folder is None:
        return commandline.parse(argv)
    try:
        # Here, where its own line says what is wrong; loading would wrap it.
        read_config(folder)
    except OSError as error:
        raise commandline.UsageError(str(error)) from error
    return commandline.parse(argv, stored=(stored.__file__, str(folder)))


def experiment(given: flags.FlagValues) -> ConfigDict:
    """The experiment with its overrides; the log tells which of these change nothing.

    Args:
      given: the flags of mq_jax.main, parsed.

    Returns:
      The configuration, with the sizes that its quantizer makes itself.

    Raises:
      UsageError: there is none.
    """
    if given.config is None:
        place = f", and {given.workdir} has no config.json to go on from" if given.workdir else ""
        raise commandline.UsageError(
            f"--config is missing{place}; give an experiment, configs/X.py."
        )
    for sentence in unused_fields(given.config, commandline.overridden(sys.argv)):
        logging.info("%s", sentence)
    take_sizes(given.config)
    return given.config


def to_evaluate(given: flags.FlagValues, typed: Sequence[str]) -> ConfigDict | None:
    """The configuration to evaluate under.

    Args:
      given: the flags of mq_jax.main, parsed.
      typed: names of the fields that the command line gives.

    Returns:
      The configuration; None for the run's own, as it is.
    """
    if commandline.flag_value(sys.argv, "config") is not None:
        take_sizes(given.config)
        return given.config
    if given.config is None or not typed:
        return None
    take_sizes(given.config)
    if not any(name.startswith("mesh.") for name in typed):
        from mq_jax.training.restored import move_to_this_machine

        move_to_this_machine(given.config)
    return given.config


def words(argv: Sequence[str]) -> list[str]:
    """The fields that a command line gives, to be given to other programs.

    Args:
      argv: the program's name and its arguments.

    Returns:
      `--config.NAME=VALUE` each.

    Raises:
      UsageError: a field is given in another form.
    """
    given = [argument for argument in argv[1:] if commandline.overridden(["", argument])]
    for word in given:
        if not word.startswith("--config.") or "=" not in word:
            (name,) = commandline.overridden(["", word])
            raise commandline.UsageError(
                f"{word}: give fields of a suite as --config.{name}=VALUE."
            )
    return given


def _parse_suite(argv: Sequence[str]) -> list[str]:
    """Parses the command line of --mode=compare."""
    if commandline.flag_value(argv, "config") is not None:
        raise commandline.UsageError(
            "--config is not of --mode=compare: a suite names its experiment, --suite=X.py."
        )
    suite = commandline.flag_value(argv, "suite")
    if not suite or not words(argv):
        return commandline.parse(argv)
    return commandline.parse(commandline.with_config(argv, read_suite(suite).experiment))


def _of_import(argv: Sequence[str]) -> Sequence[str]:
    """The command line of --mode=import, with the experiment of imported tokenizers if no other."""
    named = commandline.flag_value(argv, "config") is not None
    return argv if named else commandline.with_config(argv, _IMPORTED)


def _folder(argv: Sequence[str]) -> pathlib.Path | None:
    """The run whose configuration is asked for, if it is one."""
    given = commandline.flag_value(argv, "config")
    if given is not None:
        path = pathlib.Path(given)
        return local_path(path.parent, "--config") if path.name == _FILE else None
    workdir = commandline.flag_value(argv, "workdir")
    if not workdir:
        return None
    folder = local_path(workdir, "--workdir")
    return folder if (folder / _FILE).is_file() else None
