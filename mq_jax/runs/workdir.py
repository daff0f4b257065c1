"""The folder of a run: one configuration each, written down when the run starts."""

from __future__ import annotations

import json
import pathlib
import shlex
import tempfile
from collections.abc import Collection
from typing import Any

from mq_jax.devices.places import local_path
from mq_jax.runs import earlier
from mq_jax.runs.differing import ABSENT, unequal_fields
from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import ANY, Each, read_json

# The fields that make a run longer or shorter.
_LENGTHS = ("train.steps", "train.epochs")


def claim(workdir, config_dict: dict[str, Any], free_fields: tuple[str, ...] = ()) -> None:
    """Makes the folder this configuration's own, or checks that it is.

    The first call writes `config.json`; later ones compare with it and leave it as it is.

    Args:
      workdir: created with its parents if absent.
      config_dict: nested or flat (dotted names), of what JSON can hold; tuples count as lists.
      free_fields: dotted names, of fields or of whole sections, that may differ.

    Raises:
      ValueError: the folder belongs to another configuration, its `config.json` is damaged, or
        the place is no path of this machine.
      OSError: the folder cannot be made or written to.
    """
    workdir = local_path(workdir, "The workdir")
    require_writable(workdir)
    text = json.dumps(config_dict, indent=2, sort_keys=True) + "\n"
    if not (workdir / "config.json").exists():
        write_atomically(workdir / "config.json", text)
        return
    stored, given = flat(read_config(workdir)), flat(json.loads(text))
    differing = {
        name: values
        for name, values in sorted(unequal_fields([stored, given]).items())
        if not _is_free(name, free_fields)
    }
    if differing:
        told = "; ".join(
            f"{name}: {_shown(there)} in the workdir, {_shown(now)} now"
            for name, (there, now) in differing.items()
        )
        raise ValueError(
            f"{workdir} belongs to a run with another configuration ({told}). "
            f"{_remedy(workdir, differing)}"
        )


def require_writable(workdir: pathlib.Path) -> None:
    """Creates the folder of a run and tries to write, as permission bits do not tell everything.

    Args:
      workdir: created with its parents if absent.

    Raises:
      OSError: it cannot be made or written to, or is a file.
    """
    if workdir.exists() and not workdir.is_dir():
        raise NotADirectoryError(f"The workdir {workdir} is a file; give another --workdir.")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise OSError(
            f"The workdir {workdir} cannot be written to ({error.strerror}); "
            "give another --workdir."
        ) from error


def adopted(workdir) -> dict[str, Any]:
    """What a run that began before some fields were there says of them.

    Args:
      workdir: the folder of a run, or of none yet.

    Returns:
      Values by dotted name, which whoever goes on with the run takes over.

    Raises:
      ValueError: `config.json` is damaged.
    """
    there = (pathlib.Path(workdir) / "config.json").exists()
    return earlier.lacking(_read(workdir)) if there else {}


def read_config(workdir) -> dict[str, Any]:
    """The configuration that a workdir was claimed with, whole also where it is an older one.

    Args:
      workdir: the folder of a run.

    Returns:
      The nested configuration, its tuples as lists.

    Raises:
      FileNotFoundError: the folder has no `config.json`.
      ValueError: `config.json` is damaged.
    """
    try:
        return earlier.completed(_read(workdir))
    except TypeError as error:
        raise ValueError(f"{pathlib.Path(workdir) / 'config.json'} is damaged: {error}.") from error


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration.

    Args:
      config: nested, as read_config returns it or a ConfigDict's to_dict().

    Returns:
      Values by dotted name; an empty section is a value, {}.
    """
    fields = {}
    for key, value in config.items():
        inside = flat(value) if isinstance(value, dict) and value else {}
        fields |= {f"{key}.{name}": inner for name, inner in inside.items()} or {key: value}
    return fields


def _read(workdir) -> dict[str, Any]:
    """config.json as it stands there."""
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected the --workdir of a training run.")
    try:
        return read_json(path, Each(ANY))
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read ({error}). Put the run's configuration back, "
            "or give another --workdir."
        ) from error


def _remedy(workdir: pathlib.Path, differing: Collection[str]) -> str:
    """What to do about fields that are not those of a run."""
    if not set(_LENGTHS) & set(differing):
        return "Give another --workdir, or the same configuration to continue that run."
    stored = shlex.quote(str(workdir / "config.json"))
    return (
        "The number of steps is part of a run, whose learning rate falls to 0 over them: it cannot "
        "be made longer. Train anew, with the fields that differ and another --workdir: "
        f"--config={stored} is the configuration of this one."
    )


def _is_free(name: str, free_fields: tuple[str, ...]) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in free_fields)


def _shown(value: Any) -> str:
    return "absent" if value is ABSENT else repr(value)
