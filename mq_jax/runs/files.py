"""Files that appear whole or not at all, their sizes, and reading them within a limit."""

import contextlib
import hashlib
import os
import pathlib
import re
import stat
from collections.abc import Iterator

# What a killed process leaves of a file that `replacing` was writing.
LEFTOVER = re.compile(r"\..+\.\d+\.tmp")


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
    # Short, since a name may have all the bytes that a file system allows; the process id keeps
    # several processes from sharing a temporary file.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    temporary = path.with_name(f".{digest}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def size_of(path: pathlib.Path) -> int:
    """The bytes of a file, or of all files of a folder.

    Args:
      path: of either.

    Returns:
      Their number.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """The content of a file of unknown origin.

    Args:
      path: of the file.
      most: bytes that it may have.

    Returns:
      The bytes; not those that are written to it meanwhile.

    Raises:
      OSError: it cannot be read.
      ValueError: it is too large, or no regular file, whose reading may never end.
    """
    size = require_bounded(path, most)
    with open(path, "rb") as file:
        return file.read(size)


def require_bounded(path: str | os.PathLike, most: int) -> int:
    """The size of a regular file, which is bounded.

    Args:
      path: of the file.
      most: bytes that it may have.

    Returns:
      Its bytes.

    Raises:
      OSError: it cannot be looked at.
      ValueError: it is too large, or a pipe, a socket, a device or a folder.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"it is {_SPECIAL.get(stat.S_IFMT(found.st_mode), 'a special file')}")
    if found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes; expected at most {most:,}")
    return found.st_size


_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
