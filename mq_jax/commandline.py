"""A command line that explains itself: one line for what was wrong, no traceback."""

import pathlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mq_jax.runs.earlier import REPLACED
from mq_jax.terminal.spelling import nearest, suggestion
from mq_jax.terminal.streams import standard_output


class UsageError(Exception):
    """The command line asks for something that is not there; the message says what and where."""


def parse(
    argv: Sequence[str],
    stored: tuple[str, str] | None = None,
    known: flags.FlagValues = flags.FLAGS,
) -> list[str]:
    """Parses absl flags, after a look at what ml_collections would answer with a traceback.

    Args:
      argv: the program's name and its arguments.
      stored: the folder of a run whose config.json is the configuration, whatever --config says,
        after a file whose get_config(folder) reads it.
      known: the flags that are parsed.

    Returns:
      Arguments that are no flags.

    Raises:
      UsageError: an unknown flag or configuration field, a value of the wrong type, or a
        configuration file that is missing or fails.
    """
    argv = [_underscored(argument) for argument in argv]
    path, config = flag_value(argv, "config"), None
    if stored is not None:
        path = str(pathlib.Path(stored[1]) / "config.json")
        config = runpy.run_path(stored[0])["get_config"](stored[1])
        argv = with_config(argv, ":".join(stored))
    elif path is not None:
        config = _load(path)
    if config is not None:
        _check_overrides(argv, path, config)
    elif overrides := [argument for argument in argv[1:] if _overridden(argument)]:
        raise UsageError(
            f"{overrides[0]} changes a field; name its experiment too, --config=configs/X.py, "
            "or the --workdir of a run."
        )
    # Folders may stand among the flags.
    known.set_gnu_getopt(True)
    try:
        return known(argv)
    except flags.UnrecognizedFlagError as error:
        near = _meant_flag(error.flagname, config, known)
        raise UsageError(
            f"--{error.flagname} is no flag{near}; --help lists them, and fields of the "
            "configuration are given as --config.SECTION.FIELD."
        ) from error
    except flags.Error as error:
        # absl's message names the flag, the value and the problem, at times over several lines.
        near = _meant_value(argv, known)
        raise UsageError(f"{' '.join(str(error).split())}{near}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} or its overrides: {' '.join(str(error).split())}") from error


def overridden(argv: Sequence[str]) -> list[str]:
    """The configuration fields that a command line gives.

    Args:
      argv: the program's name and its arguments.

    Returns:
      Dotted names, `train.steps` say.
    """
    return [flag.partition(".")[2] for flag in map(_overridden, argv[1:]) if flag]


def flag_value(argv: Sequence[str], name: str) -> str | None:
    """A flag's value before anything is parsed.

    Args:
      argv: the program's name and its arguments.
      name: of the flag.

    Returns:
      The value of `--name=value` or `--name value`, None where it is not given.
    """
    for position, argument in enumerate(argv[1:], start=1):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            return value if equals else next(iter(argv[position + 1 :]), "")
    return None


def with_config(argv: Sequence[str], value: str) -> list[str]:
    """A command line whose --config is another one, which comes before its overrides.

    Args:
      argv: the program's name and its arguments.
      value: of --config.

    Returns:
      As argv.
    """
    kept, skipped = [argv[0], f"--config={value}"], False
    for argument in argv[1:]:
        name, equals, _ = argument.partition("=")
        if skipped or name in ("--config", "-config"):
            skipped = not skipped and not equals
        else:
            kept.append(argument)
    return kept


def configured(argv: Sequence[str]) -> ConfigDict:
    """The configuration that a command line gives, apart from this program's own flags.

    Args:
      argv: a name, --config=configs/X.py and its overrides.

    Returns:
      The configuration, locked.

    Raises:
      UsageError: as parse.
    """
    known, argv = flags.FlagValues(), list(argv)
    flag = config_flags.DEFINE_config_file("config", flag_values=known, sys_argv=argv)
    parse(argv, known=known)
    return flag.value


def run_file(
    given: str, flag: str, name: str, function: str, arguments: Sequence[str] = (), depth: int = 1
) -> Any:
    """What a function of a Python file returns.

    Args:
      given: the value of the flag, for messages.
      flag: its name.
      name: path of the file.
      function: the name of the function.
      arguments: of the function.
      depth: folders above the file's own to the one with the package `configs`.

    Returns:
      Whatever it returns.

    Raises:
      UsageError: there is no such file or no such function in it, or it fails.
    """
    file = pathlib.Path(name)
    if not file.is_file():
        known = sorted(p.name for p in file.parent.glob("*.py") if not p.stem.startswith("_"))
        listed = f"; {file.parent} has {', '.join(known)}" if known else ""
        near = suggestion(file.name, known, f"{file.parent}/")
        raise UsageError(f"--{flag}={name}: there is no such file{near or listed}.")
    # Experiments say `from configs import base`, from wherever the program is started.
    root = str([*file.resolve().parents][: depth + 1][-1])
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        names = runpy.run_path(name)
        if function not in names:
            raise UsageError(f"--{flag}={given}: the file has no function {function}.")
        return names[function](*arguments)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"--{flag}={given}: the file fails with {type(error).__name__}: "
            f"{' '.join(str(error).split())}."
        ) from error


def answer_help(usage: str, own: Sequence[flags.FlagHolder]) -> None:
    """Prints how a program is called, and ends it, where `--help` or `-h` asks for that.

    Args:
      usage: the program's docstring.
      own: its flags; those of the libraries are not worth a user's time.
    """
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return
    known = [flags.FLAGS[flag.name] for flag in own]
    lines = [f"  --{flag.name}: {flag.help}" for flag in known]
    override = "  --config.SECTION.FIELD: Changes a field; configs/base.py explains them all."
    standard_output().write("\n".join([usage.strip(), "", *lines, override, ""]))
    sys.exit(0)


def _meant_flag(name: str, config: ConfigDict | None, flag_values: flags.FlagValues) -> str:
    """A phrase with the flag, or the field, that a flag may have been meant to be."""
    known = {flag: flag for flag in flag_values}
    for field in [] if config is None else _fields(config):
        # `--data.dir` and `--dir` both lack what comes before them.
        for short in (field, field.partition(".")[2], field.rpartition(".")[2]):
            known.setdefault(short, field)
    near = known.get(nearest(name, known))
    if config is None and "." in name:
        near = f"config.{name}"
    return f" (did you mean --{near}?)" if near else ""


def _meant_value(argv: Sequence[str], known: flags.FlagValues) -> str:
    """A phrase with what the first value that its flag does not know may have been meant to be."""
    for name in known:
        choices = getattr(known[name].parser, "enum_values", None)
        value = flag_value(argv, name) if choices else None
        if value is not None and value not in choices:
            return suggestion(value, choices)
    return ""


def _fields(section: ConfigDict, prefix: str = "config") -> list[str]:
    """The dotted names of all fields."""
    names = []
    for key, value in section.items():
        inner = isinstance(value, ConfigDict)
        names += _fields(value, f"{prefix}.{key}") if inner else [f"{prefix}.{key}"]
    return names


def _underscored(argument: str) -> str:
    """`--weights-dir=a-b` as absl knows it, `--weights_dir=a-b`."""
    name, equals, value = argument.partition("=")
    known = name.startswith("--") and not name.startswith("--config")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if known else argument


def _load(path: str) -> ConfigDict:
    """Runs the configuration file."""
    # A file may be followed by an argument of its get_config: configs/x.py:argument.
    name, _, argument = path.partition(":")
    if name.endswith(".json") and pathlib.Path(name).is_file():
        raise UsageError(
            f"--config={path}: expected an experiment, configs/X.py, or the config.json of a run, "
            "under that very name."
        )
    return run_file(path, "config", name, "get_config", [argument] if argument else [])


def _overridden(argument: str) -> str:
    """`config.a.b` for `--config.a.b=value`, empty for an argument of another kind."""
    flag = argument.lstrip("-").partition("=")[0].removeprefix("no")
    return flag if argument.startswith("-") and flag.startswith("config.") else ""


def _check_overrides(argv: Sequence[str], path: str, config: ConfigDict) -> None:
    """Raises for the first `--config.a.b` that the configuration does not have."""
    for argument in argv[1:]:
        flag = _overridden(argument)
        if not flag:
            continue
        section, walked = config, "config"
        for key in flag.split(".")[1:]:
            if not isinstance(section, ConfigDict):
                raise UsageError(f"--{flag}: {walked} is {section!r}, not a section.")
            if key not in section:
                near = suggestion(key, section, f"{walked}.")
                if replaced := REPLACED.get(flag.partition(".")[2]):
                    near = f"; config.{replaced[0]} has taken its place"
                raise UsageError(
                    f"--{flag}: {path} has no field {walked}.{key}{near}; {walked} has "
                    f"{', '.join(sorted(section))}."
                )
            section, walked = section[key], f"{walked}.{key}"
        if isinstance(section, ConfigDict):
            raise UsageError(f"--{flag}: {walked} is a section; set one of its fields.")
