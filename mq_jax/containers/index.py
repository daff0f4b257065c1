"""Where the images of a data set's files lie, found once and kept beside them.

The index is a file of arrays. What it says of a file counts while that has the size and the time
it had; of the others the images are looked for again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mq_jax.containers.extents import CODECS, Extent, Extents, joined, stacked
from mq_jax.devices.cache import cache_directory
from mq_jax.storage import schema
from mq_jax.storage.archive import Stored, read_arrays
from mq_jax.storage.files import replacing

_VERSION = 1
_ARRAYS = {
    "told": Stored("u", 1),
    "places": Stored("i", 2),
    "names": Stored("S", 1),
    "labels": Stored("S", 1),
}
_SCHEMA = {
    "version": schema.whole(0),
    "reads": [schema.TEXT],
    "files": [{"name": schema.TEXT, "stamp": [schema.whole(0)], "images": schema.whole(0)}],
}
# A page of a Parquet file has at most as many bytes.
_MOST_WHOLE = 2**31


class Index(NamedTuple):
    """The images of the files of a data set.

    Attributes:
      sizes: of the files, bytes.
      counts: of the images of each file.
      extents: of all images, in the order of the files.
    """

    sizes: list[int]
    counts: list[int]
    extents: Extents


class _Part(NamedTuple):
    """What is known of a file: its size and time in ns, and its images."""

    stamp: list[int]
    extents: Extents


def open_index(
    root: pathlib.Path,
    names: Sequence[str],
    reads: Sequence[str],
    extents_of: Callable[[pathlib.Path], Iterator[Extent]],
) -> Index:
    """Finds the images of all files, those of an index that is there without opening them.

    Args:
      root: folder of the files.
      names: of the files, relative to it.
      reads: what is looked for in them, beginning with their kind; another index is of other.
      extents_of: finds the images of a file.

    Returns:
      The Index.

    Raises:
      ValueError: a file is damaged, or gone.
    """
    places = _places(root, reads[0])
    known: dict[str, _Part] = {}
    for place in reversed(places):
        known |= _read(place, list(reads))
    found, missing = {}, []
    for name in names:
        stamp = _stamp(root / name)
        if stamp is None:
            raise ValueError(f"{root / name} is no file that can be read.")
        if name in known and known[name].stamp == stamp:
            found[name] = known[name]
        else:
            missing.append((name, stamp))
    if missing:
        told = f"{len(missing)} of {len(names)} files in {root}"
        logging.info("Looking, once, for where the images of %s lie", told)
        for name, stamp in missing:
            found[name] = _Part(stamp, _checked(root / name, stamp, extents_of))
        # Those that a pattern left out are not forgotten.
        others = {n: p for n, p in known.items() if _stamp(root / n) == p.stamp}
        _keep(places, list(reads), others | found)
    parts = [found[name] for name in names]
    counts = [len(part.extents.places) for part in parts]
    return Index([p.stamp[0] for p in parts], counts, joined([p.extents for p in parts]))


def _stamp(path: pathlib.Path) -> list[int] | None:
    """Size and time of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _places(root: pathlib.Path, kind: str) -> list[pathlib.Path]:
    """Where the index of a folder may be: in it, and where that cannot be written in the cache."""
    places, cache = [root / f".mq_jax-{kind}.npz"], cache_directory()
    if cache is not None:
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        places.append(cache / "indices" / f"{digest}-{kind}.npz")
    return places


def _read(place: pathlib.Path, reads: list[str]) -> dict[str, _Part]:
    """What an index tells of each file; nothing where it is another one, or none."""
    try:
        arrays = read_arrays(place, _ARRAYS)
        told = schema.parse(arrays.pop("told").tobytes(), _SCHEMA)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logging.warning("%s is no index (%s); it is made anew.", place, error)
        return {}
    if (told["version"], told["reads"]) != (_VERSION, reads):
        return {}
    parts, start, whole = {}, 0, Extents(**arrays)
    for file in told["files"]:
        stop = start + file["images"]
        part = Extents(*(column[start:stop] for column in whole))
        # Anyone may have written it.
        if len(file["stamp"]) != 2 or not _possible(part, file["images"], file["stamp"][0]):
            logging.warning("%s is damaged; it is made anew.", place)
            return {}
        parts[file["name"]], start = _Part(file["stamp"], part), stop
    return parts


def _possible(extents: Extents, images: int, size: int) -> bool:
    """Whether rows are whole, and within a file of that size."""
    places = extents.places
    if any(len(column) != images for column in extents) or places.shape[1] != 6:
        return False
    offset, stored, codec, whole, skip, length = places[places[:, 1] >= 0].astype(np.int64).T
    limits = (
        *((offset, size), (stored, size - offset), (codec, len(CODECS) - 1)),
        *((whole, _MOST_WHOLE), (skip, whole), (length, whole - skip)),
    )
    return all(bool(((0 <= value) & (value <= most)).all()) for value, most in limits)


def _checked(path: pathlib.Path, stamp: list[int], extents_of: Callable) -> Extents:
    """The images of a file, which lie inside of it."""
    extents = stacked(extents_of(path))
    if not _possible(extents, len(extents.places), stamp[0]):
        raise ValueError(f"{path} is damaged: images reach past its end.")
    return extents


def _keep(places: Sequence[pathlib.Path], reads: list[str], parts: dict[str, _Part]) -> None:
    """Writes the index where that can be."""
    names = sorted(parts)
    files = [
        {"name": name, "stamp": parts[name].stamp, "images": len(parts[name].extents.places)}
        for name in names
    ]
    told: dict[str, Any] = {"version": _VERSION, "reads": reads, "files": files}
    arrays = joined([parts[name].extents for name in names])._asdict()
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    for place in places:
        try:
            if place is not places[0]:
                place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            logging.debug("%s cannot be written: %s", place, error)
            continue
        logging.info("Where they lie is kept in %s", place)
        return
    logging.warning("Where the images lie cannot be kept, and will be looked for again.")
