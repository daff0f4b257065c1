"""Where the weights of a run came from, where it did not train them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import SHA256, TEXT, Each, read_json

FILE = "provenance.json"

_SCHEMA = {"format": TEXT, "files": Each(SHA256), "published": TEXT}


class Provenance(NamedTuple):
    """The files that weights came in.

    Attributes:
      format: of the files.
      files: sha256 by name.
      published: how their authors prepare images, in words.
    """

    format: str
    files: Mapping[str, str]
    published: str


def write_provenance(folder: pathlib.Path, provenance: Provenance) -> None:
    """Writes `provenance.json`, whole or not at all.

    Args:
      folder: of the run.
      provenance: replaces what is there.
    """
    write_atomically(folder / FILE, json.dumps(provenance._asdict(), indent=2) + "\n")


def provenance_facts(folder: pathlib.Path) -> dict[str, Any]:
    """What cards say of where a run's weights came from.

    Args:
      folder: of the run.

    Returns:
      {"weights": {"format", "files", "published"}}; {} where the run trained them itself.

    Raises:
      ValueError: `provenance.json` is damaged.
    """
    path = folder / FILE
    try:
        stored = read_json(path, _SCHEMA)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}). Put it back, or import the weights again."
        ) from error
    return {"weights": {name: stored[name] for name in Provenance._fields}}
