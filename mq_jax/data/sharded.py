"""Sets whose images lie in larger files: Parquet files of the hub, tar shards of WebDataset."""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mq_jax.containers.extents import Extent, read_extent
from mq_jax.containers.index import Index, open_index
from mq_jax.containers.parquet import Columns, class_names, parquet_extents
from mq_jax.containers.tars import tar_extents
from mq_jax.data.contents import Contents
from mq_jax.data.folder import EXTENSIONS
from mq_jax.data.record import Record
from mq_jax.data.shards import Shards, list_shards
from mq_jax.data.splits import hold_out
from mq_jax.devices.reading import apart
from mq_jax.images.decode import Reading, decode_image

_NUMBER = re.compile(rb"-?\d{1,9}")
# Larger numbers are no classes but something else.
_MOST_CLASSES = 2**16


class _Kind(NamedTuple):
    """A kind of file.

    Attributes:
      ending: of its name.
      reads: which of the columns it looks at.
      extents_of: the images of a file, given these.
      classes: their names as a file tells them, given these.
    """

    ending: str
    reads: Callable[[Columns], Sequence[str]]
    extents_of: Callable[[pathlib.Path, Columns], Iterator[Extent]]
    classes: Callable[[pathlib.Path, Columns], tuple[str, ...]]


_KINDS = {
    "parquet": _Kind(".parquet", tuple, parquet_extents, class_names),
    "wds": _Kind(
        ".tar",
        lambda columns: (columns.label,),
        lambda path, columns: tar_extents(path, EXTENSIONS, columns.label),
        lambda path, columns: (),
    ),
}
KINDS = tuple(_KINDS)


class Rows(NamedTuple):
    """Images, a row each.

    Attributes:
      file: i64[N], the number of its file.
      number: i64[N], its place among the images of that file, from 0.
      places: i64[N, 6], as extents.read_extent takes them.
      names: bytes[N], as the file tells them; may be empty.
      labels: i64[N], -1 without one.
    """

    file: np.ndarray
    number: np.ndarray
    places: np.ndarray
    names: np.ndarray
    labels: np.ndarray


class ShardSource:
    """Images inside of larger files; each is read by its place alone, and nothing stays open.

    Args:
      spec: one of KINDS.
      shards: the files.
      rows: the images.
      class_names: of the labels.
      contents: what it holds.
      reading: how images are read.
    """

    def __init__(
        self,
        spec: str,
        shards: Shards,
        rows: Rows,
        class_names: tuple[str, ...],
        contents: Contents,
        reading: Reading,
    ):
        self.class_names = class_names
        self._spec, self._shards, self._rows = spec, shards, rows
        self._contents, self._reading = contents, reading

    def __len__(self) -> int:
        return len(self._rows.file)

    def __getitem__(self, index: int) -> Record:
        path = self._shards.root / self._shards.files[self._rows.file[index]]
        data = read_extent(path, self._rows.places[index], self._reading.max_bytes)
        return Record(decode_image(data, self._reading), int(self._rows.labels[index]))

    def name(self, index: int) -> str:
        path = self._shards.root / self._shards.files[self._rows.file[index]]
        return f"{path}: {_named(self._rows, index)}"

    def contents(self) -> Contents:
        return self._contents

    def regions(self) -> None:
        return None


def open_sharded(
    spec: str, place: str, split: str, holdout: str, columns: Columns, reading: Reading
) -> ShardSource:
    """Opens a split of a set of files.

    Args:
      spec: one of KINDS.
      place: folder of the files, or their path, as shards.list_shards takes it.
      split: `all`, or a split that their names tell; where they tell of none, `train` or
        `validation`, which is held out by the names of the images.
      holdout: as splits.HOLDOUTS.
      columns: which are read.
      reading: how images are read.

    Returns:
      The source, never empty.

    Raises:
      FileNotFoundError: the files are not there.
      ValueError: one of them is damaged, or the split is not there or empty.
    """
    kind = _KINDS[spec]
    shards = list_shards(place, kind.ending)
    read = functools.partial(kind.extents_of, columns=columns)
    index = apart(lambda: open_index(shards.root, shards.files, [spec, *kind.reads(columns)], read))
    hub = apart(lambda: kind.classes(shards.root / shards.files[0], columns))
    names, labels = _classes(index.extents.labels, hub)
    rows = _all_rows(index, labels)
    try:
        chosen, rule = _chosen(shards, rows, split, holdout)
    except ValueError as error:
        raise ValueError(f"split {split!r} is not in {place!r}: {error}") from error
    if not len(chosen):
        raise ValueError(f"split {split!r} of {place!r} is empty ({len(rows.file)} images in all).")
    rows = Rows(*(column[chosen] for column in rows))
    files = [
        f"{shards.files[file]} of {index.sizes[file]} bytes, {count} images"
        for file, count in zip(*np.unique(rows.file, return_counts=True), strict=True)
    ]
    # Of other columns the same files are other images.
    files += [f"column {column}" for column in kind.reads(columns) if column]
    return ShardSource(spec, shards, rows, names, Contents(spec, rule, len(chosen), files), reading)


def _all_rows(index: Index, labels: np.ndarray) -> Rows:
    counts = np.array(index.counts)
    file = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(file)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Rows(file, number, index.extents.places, index.extents.names, labels)


def _chosen(shards: Shards, rows: Rows, split: str, holdout: str) -> tuple[np.ndarray, str]:
    """The rows of a split, and what put them there."""
    files = shards.of_split(split)
    if files:
        told = "all" if split == "all" else f"files of {shards.splits[files[0]]!r}"
        return np.flatnonzero(np.isin(rows.file, files)), told
    names = [f"{shards.files[rows.file[i]]}: {_named(rows, i)}" for i in range(len(rows.file))]
    aside, told = hold_out(names, holdout)
    wanted = np.array([(name in aside) is (split == "validation") for name in names], bool)
    return np.flatnonzero(wanted), told if split == "validation" else f"all but {told}"


def _named(rows: Rows, index: int) -> str:
    """What a file calls an image, or its number there."""
    return rows.names[index].decode(errors="replace") or f"#{rows.number[index]}"


def _classes(labels: np.ndarray, hub: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the classes, and i64[N] the class of each label, -1 where it is none."""
    found, which = np.unique(labels, return_inverse=True)
    if all(_NUMBER.fullmatch(label) for label in found if label):
        values = np.array([int(label) if label else -1 for label in found], np.int64)
        top = max(values, default=-1)
        numbered = tuple(map(str, range(top + 1))) if top < _MOST_CLASSES else ()
        return hub if len(hub) > top else numbered, np.maximum(values, -1)[which]
    names = [label for label in found if label]
    values = np.array([names.index(label) if label else -1 for label in found], np.int64)
    return tuple(name.decode(errors="replace") for name in names), values[which]
