"""The archive of CelebA, the list of its splits, and what is known of each image."""

from __future__ import annotations

import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mq_jax.containers.official import Archive, Example
from mq_jax.devices.reading import open_regular
from mq_jax.storage.files import read_bytes

PARTITION = "list_eval_partition.txt"
# By the features of TFDS; identities have no heading.
ANNOTATIONS = {
    "attributes": "list_attr_celeba.txt",
    "landmarks": "list_landmarks_align_celeba.txt",
    "identity": "identity_CelebA.txt",
}

_SPLITS = ("train", "validation", "test")
# An image has some kilobytes, a list at most 27 MB.
_MOST_IMAGE, _MOST_TEXT = 2**24, 2**26


class _Annotations(NamedTuple):
    """What a file tells of each image: numbers under the names of its columns."""

    path: pathlib.Path
    columns: Sequence[str]
    rows: Mapping[str, str]
    flags: bool

    def of(self, name: str) -> dict[str, int | bool]:
        """Of one image."""
        try:
            values = [int(word) for word in self.rows[name].split()]
            named = dict(zip(self.columns, values, strict=True))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{self.path} does not tell of {name} as it should.") from error
        return {k: value > 0 for k, value in named.items()} if self.flags else named


def celeba_archive(path: pathlib.Path, partition: pathlib.Path) -> Archive:
    """Reads the aligned images of CelebA, and what the files beside their list tell of each.

    Args:
      path: of img_align_celeba.zip.
      partition: of list_eval_partition.txt. Attributes, landmarks and identities are read where
        their files lie beside it, all of them or none.

    Returns:
      The Archive.

    Raises:
      FileNotFoundError: there is no such list.
      ValueError: a file is damaged, or lacks an image that the list names.
      OSError: one cannot be read.
      zipfile.BadZipFile: it is no zip file.
    """
    if not partition.exists():
        raise FileNotFoundError(
            f"{partition} does not exist; expected the list of CelebA's splits, which is published "
            f"beside the images: put it there, or give --partition={partition.name}."
        )
    splits = _partition(partition)
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = {
            pathlib.PurePosixPath(member.filename).name: member
            for member in archive.infolist()
            if not member.is_dir()
        }
    annotations = _annotations(partition.parent)
    missing = [name for names in splits.values() for name in names if name not in members]
    if missing:
        raise ValueError(f"it lacks {len(missing)} images of {partition}, {missing[0]} first")

    def examples(split):
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            for name in sorted(splits[split]):
                if members[name].file_size > _MOST_IMAGE:
                    raise ValueError(f"{path}: {name} has {members[name].file_size:,} bytes.")
                others = {group: told.of(name) for group, told in annotations.items()}
                try:
                    yield Example(name, archive.read(members[name]), others)
                except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                    raise ValueError(f"{path}: {name} is damaged ({error}).") from error

    counts = {split: len(names) for split, names in splits.items()}
    columns = {group: told.columns for group, told in annotations.items()}
    return Archive("celeb_a", counts, columns, examples)


def _partition(path: pathlib.Path) -> dict[str, list[str]]:
    """The names of the images of each split."""
    splits: dict[str, list[str]] = {split: [] for split in _SPLITS}
    lines = read_bytes(path, _MOST_TEXT).decode(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        name, _, split = line.strip().partition(" ")
        if split not in ("0", "1", "2"):
            raise ValueError(
                f"line {number} of {path} is {line[:60]!r}; expected NAME and 0, 1 or 2"
            )
        splits[_SPLITS[int(split)]].append(name)
    empty = [split for split, names in splits.items() if not names]
    if empty:
        raise ValueError(f"{path} names no image of {', '.join(empty)}")
    return splits


def _annotations(folder: pathlib.Path) -> dict[str, _Annotations]:
    """Those of all files, none where one is not there."""
    paths = {group: folder / name for group, name in ANNOTATIONS.items()}
    if not all(path.exists() for path in paths.values()):
        return {}
    found = {}
    for group, path in paths.items():
        lines = list(_lines(path))
        columns = ["Identity_No"]
        if group != "identity":
            # The number of images, and a heading.
            columns, lines = lines[1].split() if len(lines) > 1 else [], lines[2:]
        rows = dict(line.strip().partition(" ")[::2] for line in lines)
        found[group] = _Annotations(path, columns, rows, group == "attributes")
    return found


def _lines(path: pathlib.Path) -> Iterator[str]:
    yield from read_bytes(path, _MOST_TEXT).decode(errors="replace").splitlines()
