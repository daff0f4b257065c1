"""Random-access sources of decoded images: TFDS, a folder, larger files, the embedded photos.

A split may end in a slice as TFDS writes it: `train[:2000]`, `validation[10%:]`.
"""

import os
import re
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from absl import logging

from mq_jax.containers.parquet import BY_TYPE, Columns
from mq_jax.data import photos
from mq_jax.data.contents import Contents
from mq_jax.data.folder import Listing, list_folder
from mq_jax.data.prepared import open_prepared
from mq_jax.data.record import Record
from mq_jax.data.sharded import KINDS, open_sharded
from mq_jax.data.splits import HOLDOUTS
from mq_jax.devices.places import local_path
from mq_jax.devices.reading import apart
from mq_jax.images.decode import USUAL, Reading, decode_image, read_image

SPECS = ("tfds:NAME", "folder", *KINDS, "photos")

# Those whose data.dir is of a person's own data.
IN_FOLDERS = ("folder", *KINDS)

_SPLIT = re.compile(r"(?P<name>[^\[\]]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


class Source(Protocol):
    """Random access to records; picklable, and small when pickled.

    Indexing decodes, and raises ValueError for an image that cannot be read.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def name(self, index: int) -> str:
        """What a person calls a record: its path, or its set, split and number."""
        ...

    def contents(self) -> Contents:
        """What it holds, told the same wherever it lies."""
        ...

    def regions(self) -> Sequence[Hashable] | None:
        """Of each record whose pixels it has, equal for those that share some; None: none do."""
        ...


def open_source(
    spec: str,
    *,
    directory: str,
    split: str,
    holdout: str = HOLDOUTS[0],
    columns: Columns = BY_TYPE,
    reading: Reading = USUAL,
) -> Source:
    """Opens a source.

    Args:
      spec: "tfds:NAME" (a set prepared as ArrayRecord), "folder" (a tree of image files, of
        the endings in data.folder), "parquet" (files of the hub), "wds" (tar shards) or "photos"
        (photographs inside scikit-image and scikit-learn).
      directory: TFDS's data_dir ("" is TFDS's default), the root of the tree, or where the files
        are, as shards.list_shards takes it; unused by photos.
      split: a split of the set; `all`, `train`, `validation` or a sub-folder of the tree, or what
        the names of the files tell; `train` or `validation` of the photos. An optional slice
        follows: `train[:2000]`, `all[50%:]`.
      holdout: which images validate where no folder or file tells of splits, of splits.HOLDOUTS.
      columns: of Parquet files; the label's key in tar shards.
      reading: how image files are read.

    Returns:
      The source, never empty.

    Raises:
      FileNotFoundError: the folder or the files do not exist.
      ValueError: the spec or split is unknown, or there is nothing to read.
    """
    kind, _, name = spec.partition(":")
    if kind == "tfds" and name:
        return TfdsSource(name, split, directory, reading)
    if spec not in SPECS[1:]:
        raise ValueError(f"the source is {spec!r}; expected one of {', '.join(SPECS)}.")
    match = _SPLIT.fullmatch(split)
    if not match:
        raise ValueError(f"split is {split!r}; expected NAME or NAME[a:b], such as 'train[:90%]'.")
    if spec == "folder":
        listing = list_folder(directory, match["name"], holdout)
        source = FolderSource(directory, listing, reading)
    elif spec in KINDS:
        source = open_sharded(spec, directory, match["name"], holdout, columns, reading)
    else:
        source = PhotoSource(match["name"], reading)
    start = _bound(match["start"], 0, len(source), split)
    stop = _bound(match["stop"], len(source), len(source), split)
    if start >= stop:
        raise ValueError(f"split {split!r} is empty: records {start} to {stop} of {len(source)}.")
    if spec == "photos":
        _warn_of_cut_regions(source, (start, stop), split)
    return source if stop - start == len(source) else subset(source, range(start, stop))


class TfdsSource:
    """A split of a prepared TFDS set; images are decoded by `decode_image`."""

    def __init__(self, name: str, split: str, directory: str, reading: Reading):
        prepared = apart(lambda: open_prepared(name, split, directory))
        self._records, self.class_names, self._labelled, self._contents = prepared
        self._title = f"{name} {split}"
        self._reading = reading

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record: dict[str, Any] = self._records[index]
        image = decode_image(record["image"], self._reading)
        return Record(image, record["label"] if self._labelled else -1)

    def name(self, index: int) -> str:
        return f"{self._title} #{index}"

    def contents(self) -> Contents:
        return self._contents

    def regions(self) -> None:
        return None


class FolderSource:
    """The images of a directory tree that a listing names."""

    def __init__(self, directory: str, listing: Listing, reading: Reading):
        self.class_names = listing.class_names
        self._root = local_path(directory, "The folder").absolute()
        self._listing = listing
        self._reading = reading

    def __len__(self) -> int:
        return len(self._listing.paths)

    def __getitem__(self, index: int) -> Record:
        image = read_image(self._root / self._listing.paths[index], self._reading)
        return Record(image, self._listing.labels[index])

    def name(self, index: int) -> str:
        return str(self._root / self._listing.paths[index])

    def contents(self) -> Contents:
        paths, _, _, rule, aside = self._listing
        return Contents("folder", rule, len(paths), paths, per_image=True, aside=aside)

    def regions(self) -> Sequence[Hashable] | None:
        """The files behind the names: a link is the file that it leads to."""
        paths = [self._root / path for path in self._listing.paths]
        files = apart(lambda: [_file_identity(path) for path in paths])
        return files if len(set(files)) < len(files) else None


class PhotoSource:
    """Rectangles of the embedded photographs; the label tells the photograph."""

    def __init__(self, split: str, reading: Reading):
        self.class_names = tuple(photos.PHOTOS)
        self._crops = photos.photo_crops(split)
        self._split = split
        self._reading = reading

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: int) -> Record:
        crop = self._crops[index]
        return Record(photos.read_crop(crop, self._reading), self.class_names.index(crop.photo))

    def name(self, index: int) -> str:
        photo, box = self._crops[index]
        return f"photos {photo} {box.width}x{box.height}+{box.x}+{box.y}"

    def contents(self) -> Contents:
        return Contents("photos", f"photos {self._split}", len(self._crops))

    def regions(self) -> Sequence[Hashable]:
        return self._crops


class Subset:
    """Some records of another source, in a given order."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.class_names = source.class_names
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._source[self._indices[index]]

    def name(self, index: int) -> str:
        return self._source.name(self._indices[index])

    def contents(self) -> Contents:
        return self._source.contents().of(self._indices)

    def regions(self) -> Sequence[Hashable] | None:
        regions = self._source.regions()
        return regions and [regions[index] for index in self._indices]


def subset(source: Source, indices: Sequence[int]) -> Source:
    """The records `indices` of a source, renumbered from 0; a range keeps the pickle small."""
    return Subset(source, indices)


def halves(source: Source) -> tuple[Source, Source]:
    """Two halves (inner, outer) without a pixel in common: the even and the odd records.

    Records that share pixels stay together, in the half that has fewer records so far.

    Raises:
      ValueError: the source has fewer than two images.
    """
    regions = source.regions()
    count = len(source) if regions is None else len(set(regions))
    if count < 2:
        raise ValueError(f"the source has {count} image; two halves need at least 2.")
    if regions is None:
        return subset(source, range(0, len(source), 2)), subset(source, range(1, len(source), 2))
    members: dict[Hashable, list[int]] = {}
    for index, region in enumerate(regions):
        members.setdefault(region, []).append(index)
    inner: list[int] = []
    outer: list[int] = []
    for indices in members.values():
        (inner if len(inner) <= len(outer) else outer).extend(indices)
    return subset(source, sorted(inner)), subset(source, sorted(outer))


def _file_identity(path: os.PathLike) -> Hashable:
    """What tells a file from every other one; a path that leads nowhere now is its own."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    return found.st_dev, found.st_ino


def _warn_of_cut_regions(source: Source, bounds: Sequence[int], split: str) -> None:
    """Warns of a slice that shares pixels with the slice beside it."""
    regions = source.regions()
    for bound in bounds:
        if 0 < bound < len(source) and regions[bound - 1] == regions[bound]:
            logging.warning(
                "split %r cuts through %s, of which the slice beside it sees the same pixels.",
                *(split, source.name(bound)),
            )


def _bound(text: str | None, default: int, length: int, split: str) -> int:
    """One end of a slice as a record number; percents round to the nearest record."""
    if text is None:
        return default
    number = int(text.rstrip("%"))
    limit = 100 if text.endswith("%") else length
    if abs(number) > limit:
        raise ValueError(f"split {split!r} reaches past its {length} records ({text}).")
    number = number + limit if number < 0 else number
    return round(number * length / 100) if text.endswith("%") else number
