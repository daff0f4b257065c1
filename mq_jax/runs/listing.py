"""What data a run was trained on: counts and digests of its splits, and what has changed since."""

from __future__ import annotations

import gzip
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mq_jax.runs.records import read_record
from mq_jax.storage.files import read_bytes, replacing, write_atomically
from mq_jax.storage.schema import TEXT, Each, parse, whole

FILE = "data.json"

# Names alone: large where there are many images, and read only to tell which have changed.
NAMES_FILE = "data-names.json.gz"

VERSION = 1
_SCHEMA = {
    "version": whole(VERSION, VERSION),
    "splits": Each({"origin": TEXT, "sha256": TEXT, "images": whole(0)}),
    "changes": [{"after_step": whole(0), "difference": TEXT}],
}

# Of the names when they are unpacked: ten million images.
_MOST_NAMES = 2**30
# What zlib calls its format.
_GZIP = 31

_COMPARED = ("origin", "images", "sha256")
_SHOWN = 3


class Recorded(NamedTuple):
    """What a run's folder says of its data.

    Attributes:
      splits: by use, "train" say: origin, rule, images, sha256.
      names: by use: of the images, or of the files that hold them; empty where they are lost.
      changes: what was accepted since, each {"after_step": ..., "difference": ...}.
    """

    splits: dict[str, dict[str, Any]]
    names: dict[str, list[str]]
    changes: list[dict[str, Any]]


def write_recorded(folder: pathlib.Path, recorded: Recorded) -> None:
    """Writes `data.json` and the names, each whole or not at all.

    Args:
      folder: of the run.
      recorded: replaces what is there.
    """
    names = json.dumps(recorded.names).encode()
    with replacing(folder / NAMES_FILE) as temporary:
        # Without the time, so that the same names make the same file.
        temporary.write_bytes(gzip.compress(names, mtime=0))
    stored = {"version": VERSION, "splits": recorded.splits, "changes": recorded.changes}
    write_atomically(folder / FILE, json.dumps(stored, indent=2) + "\n")


def read_recorded(folder: pathlib.Path) -> Recorded | None:
    """Reads what a run's folder says of its data.

    Args:
      folder: of the run.

    Returns:
      A Recorded; None for a run that began before data was recorded.

    Raises:
      ValueError: `data.json` is damaged.
    """
    stored = read_record(folder / FILE, _SCHEMA, "remove it to record the data as it is now")
    if stored is None:
        return None
    return Recorded(stored["splits"], _read_names(folder / NAMES_FILE), stored["changes"])


def difference(
    recorded: Recorded, splits: Mapping[str, Mapping[str, Any]], names: Mapping[str, Sequence[str]]
) -> str:
    """What of the data is no longer as it was recorded.

    Args:
      recorded: of before.
      splits: of now, those to be compared.
      names: of now.

    Returns:
      One line; empty where nothing has changed.
    """
    told = []
    for use, now in splits.items():
        before = recorded.splits[use] if use in recorded.splits else None
        if before is None or all(before[name] == now[name] for name in _COMPARED):
            continue
        if before["origin"] != now["origin"]:
            told.append(f"{use}: {before['origin']} then, {now['origin']} now")
            continue
        counts = f"{before['images']} images then, {now['images']} now"
        told.append(f"{use}: {counts}{_of_names(recorded.names.get(use), names[use])}")
    return "; ".join(told)


def _of_names(before: Sequence[str] | None, now: Sequence[str]) -> str:
    """How many names came and went, and the first of them; nothing where they are lost."""
    if before is None:
        return ""
    parts = []
    for what, here, there in (("added", now, before), ("removed", before, now)):
        there = set(there)
        found = [name for name in here if name not in there]
        shown = ", ".join(repr(name) for name in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        parts.append(f"{len(found)} {what}{f' ({shown}{more})' if found else ''}")
    return f", {' and '.join(parts)}"


def _read_names(path: pathlib.Path) -> dict[str, list[str]]:
    """The names, empty where they cannot be read: the digests tell whether anything changed."""
    try:
        unpacking = zlib.decompressobj(_GZIP)
        names = unpacking.decompress(read_bytes(path, _MOST_NAMES), _MOST_NAMES)
        # Not where there is more, nor where the end with its checksum is lost.
        return parse(names, Each([TEXT])) if unpacking.eof else {}
    except (OSError, ValueError, zlib.error):
        return {}
