"""Finding images in a directory tree: which belong to a split, and their classes."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
)
SPLIT_FOLDERS = ("train", "validation", "val", "valid", "test")

_VALIDATION_FOLDERS = ("validation", "val", "valid", "test")
_HOLD_OUT_EVERY = 10


class Listing(NamedTuple):
    """The images of a split: relative posix paths, sorted, and their labels (-1: none)."""

    paths: list[str]
    labels: list[int]
    class_names: tuple[str, ...]


def list_folder(directory: str, name: str) -> Listing:
    """Lists the images of a split of a directory tree.

    `all` is the whole tree; any other name is the sub-folder of that name, `validation` also
    `val`, `valid` or `test`. In a tree without any such sub-folder, `validation` is every tenth
    image in sorted order and `train` the rest. Hidden files and folders are ignored.

    Args:
      directory: root of the tree.
      name: `all`, `train`, `validation` or the name of a sub-folder.

    Returns:
      The listing; the classes are the first-level sub-folders (below the split's folder, where
      there is one), the same for every split.

    Raises:
      FileNotFoundError: the directory does not exist.
      ValueError: it holds no image, or the split is unknown or empty.
    """
    root = pathlib.Path(directory).expanduser()
    if not directory or not root.is_dir():
        raise FileNotFoundError(
            f"directory is {directory!r}, which is no directory (looked at {root.absolute()}); "
            "expected the root of a tree of images."
        )
    everything = sorted(_files(root))
    images = [path for path in everything if path.lower().endswith(EXTENSIONS)]
    if not images:
        raise ValueError(f"no image in {directory!r}: {_inventory(everything)}")
    paths, prefixes = _select(images, name, directory)
    if not paths:
        raise ValueError(f"split {name!r} of {directory!r} is empty ({len(images)} images in all).")
    known = images if prefixes is SPLIT_FOLDERS else paths
    class_names = tuple(sorted({_class(path, prefixes) for path in known} - {None}))
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    return Listing(paths, [label_of.get(_class(path, prefixes), -1) for path in paths], class_names)


def _files(root: pathlib.Path) -> Iterator[str]:
    """Relative posix paths of all files that are not hidden; links to folders are followed."""
    seen = set()
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        # A link back up the tree would never end.
        identity = os.path.realpath(folder)
        subfolders[:] = [] if identity in seen else [s for s in subfolders if s[0] != "."]
        if identity in seen:
            continue
        seen.add(identity)
        relative = pathlib.PurePath(os.path.relpath(folder, root))
        yield from ((relative / file).as_posix() for file in files if file[0] != ".")


def _refuse(error: OSError) -> None:
    """Raises what `os.walk` would pass over: a part of the tree missing in silence."""
    raise error


def _select(images: list[str], name: str, directory: str) -> tuple[list[str], tuple[str, ...]]:
    """The images of a split, and the leading folders that name a split, not a class."""
    folders = {path.split("/")[0] for path in images if "/" in path}
    if name == "all":
        return images, SPLIT_FOLDERS
    candidates = _VALIDATION_FOLDERS if name == "validation" else (name,)
    for folder in candidates:
        if folder in folders:
            prefixes = SPLIT_FOLDERS if folder in SPLIT_FOLDERS else (folder,)
            return [path for path in images if path.startswith(f"{folder}/")], prefixes
    if name in ("train", "validation") and not folders & set(SPLIT_FOLDERS):
        held_out = images[::_HOLD_OUT_EVERY]
        if name == "validation":
            return held_out, SPLIT_FOLDERS
        return [path for i, path in enumerate(images) if i % _HOLD_OUT_EVERY], SPLIT_FOLDERS
    raise ValueError(
        f"split {name!r} is not in {directory!r}, whose sub-folders are {_some(sorted(folders))}; "
        "expected one of them, or 'all' (or 'train' and 'validation' in a tree without "
        f"sub-folders named {', '.join(SPLIT_FOLDERS)})."
    )


def _class(path: str, prefixes: tuple[str, ...]) -> str | None:
    """The first folder of a path below the split's folder, None where there is none."""
    folders = path.split("/")[:-1]
    if folders and folders[0] in prefixes:
        folders = folders[1:]
    return folders[0] if folders else None


def _inventory(files: list[str]) -> str:
    """What was looked for and what lies there instead."""
    looked_for = f"looked for {', '.join(EXTENSIONS)} (upper or lower case)"
    if not files:
        return f"{looked_for}, found no file that is not hidden."
    endings = sorted({os.path.splitext(file)[1] or "no extension" for file in files})
    return f"{looked_for}, found {len(files)} other files ({_some(endings)}), such as {files[0]!r}."


def _some(names: list[str]) -> str:
    """The first ten names."""
    return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "none"
