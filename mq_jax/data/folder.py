"""Finding images in a directory tree: which belong to a split, and their classes."""

import collections
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from mq_jax.data.splits import HOLDOUTS, class_of, select_split, some
from mq_jax.devices.places import local_path
from mq_jax.devices.reading import apart

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
)

# What was an image while every tenth was held out: any more or less would move the others.
_EARLIER_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
# Sources of files that hold many images, by the endings of these.
_READERS = {".parquet": "parquet", ".tar": "wds"}
_IRREGULAR = "no regular file"


class Listing(NamedTuple):
    """The images of a split.

    Attributes:
      paths: relative posix paths, sorted.
      labels: their classes, -1 without one.
      class_names: of the labels.
      rule: what put them into the split.
      aside: how many files of the tree are no images, by ending.
    """

    paths: list[str]
    labels: list[int]
    class_names: tuple[str, ...]
    rule: str
    aside: dict[str, int]


def list_folder(directory: str, name: str, holdout: str = HOLDOUTS[0]) -> Listing:
    """Lists the images of a split of a directory tree, as `select_split` divides it.

    Hidden files and folders are ignored, and so is all that is no regular file or a link to one.

    Args:
      directory: root of the tree.
      name: `all`, `train`, `validation`, `test` or the name of a sub-folder.
      holdout: one of splits.HOLDOUTS, for a tree without folders of splits.

    Returns:
      The listing; the classes are the first-level sub-folders (below the split's folder, where
      there is one), the same for every split.

    Raises:
      FileNotFoundError: the directory does not exist.
      ValueError: it holds no image, or the split is unknown or empty.
    """
    root = require_folder(directory)
    earlier = holdout == "every-tenth"
    extensions = _EARLIER_EXTENSIONS if earlier else EXTENSIONS
    images, others = [], []
    for path, regular in sorted(apart(lambda: list(_files(root)))):
        # A link to nothing counted, as an image that cannot be read.
        image = (regular or earlier) and path.lower().endswith(extensions)
        (images if image else others).append((path, regular))
    images = [path for path, _ in images]
    if not images:
        raise ValueError(f"no image in {directory!r}: {_inventory(others, extensions)}")
    try:
        split = select_split(images, name, holdout)
    except ValueError as error:
        raise ValueError(f"split {name!r} is not in {directory!r}: {error}") from error
    if not split.paths:
        raise ValueError(f"split {name!r} of {directory!r} is empty ({len(images)} images in all).")
    class_names = tuple(sorted({class_of(path, split.folders) for path in split.known} - {None}))
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    labels = [label_of.get(class_of(path, split.folders), -1) for path in split.paths]
    aside = dict(collections.Counter(_ending(*other) for other in others).most_common())
    return Listing(split.paths, labels, class_names, split.rule, aside)


def require_folder(directory: str) -> pathlib.Path:
    """Checks that the folder of a source of this kind was given and is there.

    Args:
      directory: config.data.dir.

    Returns:
      Its path.

    Raises:
      FileNotFoundError: it is empty, or no folder.
      ValueError: it is no place of this machine.
    """
    if not directory:
        raise FileNotFoundError(
            "config.data.dir is empty; expected the folder of the images, --config.data.dir=IMAGES."
        )
    root = local_path(directory, "config.data.dir")
    if not apart(root.is_dir):
        raise FileNotFoundError(
            f"config.data.dir is {directory!r}, which is no directory (looked at "
            f"{root.absolute()}); expected the root of a tree of images."
        )
    return root


def _files(root: pathlib.Path) -> Iterator[tuple[str, bool]]:
    """Relative posix paths of all that is no folder and not hidden, and whether it is a file.

    Links are followed. A folder that cannot be read raises: no part is missing in silence.
    """
    seen, waiting = set(), [("", os.fspath(root))]
    while waiting:
        prefix, folder = waiting.pop()
        # A link back up the tree would never end.
        identity = os.path.realpath(folder)
        if identity in seen:
            continue
        seen.add(identity)
        with os.scandir(folder) as found:
            entries = sorted((e for e in found if e.name[0] != "."), key=lambda e: e.name)
        inner = []
        for entry in entries:
            if _is(entry.is_dir):
                inner.append((f"{prefix}{entry.name}/", entry.path))
            else:
                yield prefix + entry.name, _is(entry.is_file)
        # The first in order comes next, so that of two links to a folder always the same counts.
        waiting.extend(reversed(inner))


def _is(question) -> bool:
    """The answer of a directory entry; a link to itself is nothing."""
    try:
        return question()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _ending(path: str, regular: bool) -> str:
    """What a file is counted under that is left aside."""
    if not regular:
        return _IRREGULAR
    ending = os.path.splitext(path)[1].lower()
    # A name may hold what would forge a line of the log.
    return (ending if ending.isprintable() else repr(ending)) or "without ending"


def _inventory(others: list[tuple[str, bool]], extensions: tuple[str, ...]) -> str:
    """What was looked for and what lies there instead."""
    looked_for = f"looked for {', '.join(extensions)} (upper or lower case)"
    if not others:
        return f"{looked_for}, found no file that is not hidden."
    endings = sorted({_ending(*other) for other in others})
    readers = [f"{_READERS[ending]!r} reads {ending}" for ending in endings if ending in _READERS]
    advice = f" config.data.source={'; '.join(readers)}." if readers else ""
    told = f"{len(others)} other files ({some(endings)}), such as {others[0][0]!r}"
    return f"{looked_for}, found {told}.{advice}"
