"""Where the weights of a run came from, where it did not train them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mq_jax.runs.records import read_record, write_record
from mq_jax.storage.schema import SHA256, TEXT, Each

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
    write_record(folder / FILE, provenance)


def provenance_facts(folder: pathlib.Path) -> dict[str, Any]:
    """What cards say of where a run's weights came from.

    Args:
      folder: of the run.

    Returns:
      {"weights": {"format", "files", "published"}}; {} where the run trained them itself.

    Raises:
      ValueError: `provenance.json` is damaged.
    """
    stored = read_record(folder / FILE, _SCHEMA, "import the weights again")
    if stored is None:
        return {}
    return {"weights": {name: stored[name] for name in Provenance._fields}}
