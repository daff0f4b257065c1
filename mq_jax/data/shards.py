"""Files that hold many images each: which of a folder there are, and which split each is of."""

import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from mq_jax.data.splits import SYNONYMS, some
from mq_jax.devices.places import local_path
from mq_jax.devices.reading import apart

# {0000..0009}, as the names of tar shards are written.
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000
# data/restval-00000-of-00005.parquet: there, on the hub, any word may be a split.
_NUMBERED = re.compile(r"(?P<split>[A-Za-z]\w*)[-_.]\d{5}-of-\d{5}\b.*")


class Shards(NamedTuple):
    """The files of a data set.

    Attributes:
      root: the folder below which they lie.
      files: relative posix paths, sorted, or in the order of a pattern.
      splits: of each the name of its split, "" where nothing says it.
    """

    root: pathlib.Path
    files: tuple[str, ...]
    splits: tuple[str, ...]

    def of_split(self, name: str) -> list[int]:
        """The numbers of the files of a split, none where no file is of any.

        Args:
          name: of a split or a synonym; where nothing is there for `validation`, that for `test`.

        Returns:
          Numbers of files, in their order.

        Raises:
          ValueError: other splits are there, this one is not.
        """
        there = sorted(set(self.splits) - {""})
        if name == "all":
            return list(range(len(self.files)))
        wanted = _usual(name)
        for each in (wanted, "test") if wanted == "validation" else (wanted,):
            if each in there:
                return [i for i, split in enumerate(self.splits) if split == each]
        if not there and name in ("train", "validation"):
            return []
        advice = " A part of one is a slice of it: train[:90%] and train[90%:]." if there else ""
        raise ValueError(
            f"the names of its {len(self.files)} files tell of {some(there)}; expected one of "
            f"them, or 'all' (or 'train' and 'validation' where they tell of none).{advice}"
        )


def list_shards(place: str, ending: str) -> Shards:
    """Finds the files of a data set.

    The split of a file is a word of its name, or else of the folders it lies in: `train`,
    `validation` (`val`, `valid`) or `test`, in any case; in a folder `data` as the hub has it, all
    that stands before 00000-of-00005.

    Args:
      place: a folder, which is searched with the folders below it, hidden ones left out; a file;
        or the path of files with {0000..0009} in their name.
      ending: of the files, in lower case.

    Returns:
      The Shards, never empty.

    Raises:
      FileNotFoundError: the folder or a file is not there.
      ValueError: no file is of that kind, or it is no place of this machine.
    """
    path = require_shards(place)
    if apart(path.is_dir):
        files = tuple(sorted(apart(lambda: list(_below(path, ending)))))
        root = path
    else:
        root, files = path.parent, tuple(_expanded(path.name))
    if not files:
        raise ValueError(
            f"no {ending} file in {place!r}; expected some, in it or in folders "
            "below. What is compressed as a whole, .tar.gz say, has to be unpacked first."
        )
    return Shards(root.absolute(), files, tuple(map(_split_of, files)))


def require_shards(place: str) -> pathlib.Path:
    """Checks that the files of a data set are there.

    Args:
      place: as list_shards takes it.

    Returns:
      Its path.

    Raises:
      FileNotFoundError: the folder or a file is not there.
      ValueError: it is no place of this machine, or names too many files.
    """
    if not place:
        raise FileNotFoundError(
            "config.data.dir is empty; expected the folder of the files, or their path with "
            "{0000..0009} for their numbers, --config.data.dir=FOLDER."
        )
    path = local_path(place, "config.data.dir")
    if apart(path.is_dir):
        return path
    files = [path.parent / name for name in _expanded(path.name)]
    missing = apart(lambda: next((file for file in files if not file.is_file()), None))
    if missing is not None:
        raise FileNotFoundError(
            f"config.data.dir is {place!r}, but there is no {missing.absolute()}; expected a "
            "folder, a file, or files with {0000..0009} for their numbers."
        )
    return path


def _expanded(pattern: str) -> Iterator[str]:
    """The names that a name with ranges of numbers stands for, as a shell writes them out."""
    parts = _RANGE.split(pattern)
    bounds = list(zip(parts[1::3], parts[2::3], strict=True))
    count = 1
    for first, last in bounds:
        count *= max(0, int(last) - int(first) + 1)
    if not 0 < count <= _MOST_SHARDS:
        raise ValueError(
            f"config.data.dir ends in {pattern!r}, which names {count:,} files; expected 1 to "
            f"{_MOST_SHARDS:,}."
        )
    ranges = [range(int(first), int(last) + 1) for first, last in bounds]
    for numbers in itertools.product(*ranges):
        words = [f"{n:0{len(first)}}" for n, (first, _) in zip(numbers, bounds, strict=True)]
        yield "".join(itertools.chain(*itertools.zip_longest(parts[::3], words, fillvalue="")))


def _below(root: pathlib.Path, ending: str) -> Iterator[str]:
    """The files of an ending, as relative posix paths; links to folders are not followed."""

    def refuse(error):
        raise error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(ending) and not name.startswith("."):
                yield (pathlib.Path(folder) / name).relative_to(root).as_posix()


def _split_of(file: str) -> str:
    """The split that the path of a file tells, by its usual name; "" where it tells none."""
    *folders, name = file.split("/")
    numbered = _NUMBERED.fullmatch(name) if folders[-1:] == ["data"] else None
    if numbered:
        return _usual(numbered["split"])
    for part in (name, *reversed(folders)):
        for word in re.split(r"[^A-Za-z]+", part):
            if _usual(word) in SYNONYMS:
                return _usual(word)
    return ""


def _usual(name: str) -> str:
    """The first of a split's synonyms."""
    kinds = (kind for kind, synonyms in SYNONYMS.items() if name.lower() in synonyms)
    return next(kinds, name)
