"""What a run took its first weights from, where that was another model."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mq_jax.runs.records import read_record, write_record
from mq_jax.storage.schema import SHA256, TEXT, Each, Nullable, whole

FILE = "origin.json"

_SCHEMA = {
    "source": TEXT,
    "step": Nullable(whole(0)),
    "fingerprint": SHA256,
    "taken": [TEXT],
    "fresh": Each(TEXT),
}


class Origin(NamedTuple):
    """Where a run began.

    Attributes:
      source: the path that was given.
      step: of the checkpoint; None of an export, which has none.
      fingerprint: of the model there, as its export has it.
      taken: the parts that were taken, all or most of them.
      fresh: what was made anew: parts and arrays, each with the reason.
    """

    source: str
    step: int | None
    fingerprint: str
    taken: Sequence[str]
    fresh: Mapping[str, str]


def in_words(origin: Origin) -> str:
    """A sentence for the log.

    Args:
      origin: any.

    Returns:
      What was taken from where, and what was not and why.
    """
    at = "" if origin.step is None else f", step {origin.step}"
    told = f"{', '.join(origin.taken)} from {origin.source}{at} ({origin.fingerprint[:16]}...)"
    if not origin.fresh:
        return told
    fresh = "; ".join(f"{name} ({reason})" for name, reason in origin.fresh.items())
    return f"{told}; made anew: {fresh}"


def write_origin(folder: pathlib.Path, origin: Origin) -> None:
    """Writes `origin.json`, whole or not at all.

    Args:
      folder: of the run.
      origin: replaces what is there.
    """
    write_record(folder / FILE, origin)


def read_origin(folder: pathlib.Path) -> Origin | None:
    """Reads `origin.json`.

    Args:
      folder: of the run.

    Returns:
      An Origin; None of a run that began by itself.

    Raises:
      ValueError: the file is damaged.
    """
    stored = read_record(folder / FILE, _SCHEMA)
    return None if stored is None else Origin(*(stored[name] for name in Origin._fields))
