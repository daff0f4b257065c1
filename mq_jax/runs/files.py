"""Files that appear whole or not at all, and their sizes."""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

# What a killed process leaves of a file that `replacing` was writing.
LEFTOVER = re.compile(r"\..+\.\d+\.tmp")
# What a killed process leaves of a folder that it was about to replace: its name is in it.
_REPLACED = re.compile(r"\.(.+)\.\d+\.old")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A place to write a file at, which takes its name when the block ends well.

    Args:
      path: of the file; its folder exists. It stays as it is where the block fails.

    Yields:
      The path to write to.

    Raises:
      OSError: the file cannot take its name.
    """
    # The process id keeps several processes from sharing a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed processes left half-written; what they had moved aside goes back.

    Args:
      folder: into which nobody else writes.
    """
    for old in list(folder.glob(".*.old")):
        if name := _REPLACED.fullmatch(old.name):
            # Without a successor it is all there is.
            if not (folder / name[1]).exists():
                old.rename(folder / name[1])
            else:
                _remove(old)
    for path in list(folder.rglob(".*.tmp")):
        if LEFTOVER.fullmatch(path.name):
            _remove(path)


def _remove(path: pathlib.Path) -> None:
    """Removes a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(path: pathlib.Path) -> int:
    """The bytes of a file, or of all files of a folder.

    Args:
      path: of either.

    Returns:
      Their number.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
