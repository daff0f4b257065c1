"""Files that appear whole or not at all, their sizes, and reading them within a limit."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Iterator
from typing import BinaryIO

from mq_jax.devices.reading import open_regular

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
    # Short, since a name may have all the bytes that a file system allows; host and process id
    # keep several processes from sharing a temporary file.
    told = os.fsencode(path.name) + b"\0" + socket.gethostname().encode()
    digest = hashlib.sha256(told).hexdigest()[:16]
    temporary = path.with_name(f".{digest}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path, text: str) -> None:
    """Writes a text file so that a crash leaves the old content or the new, never a part.

    Args:
      path: of the file; its folder exists.
      text: the whole content.

    Raises:
      OSError: the file cannot be written; the old one is as it was.
    """
    # The name of a file that the text tells need not be text that UTF-8 can hold.
    data = text.encode("utf-8", "backslashreplace")
    with replacing(pathlib.Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


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


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """The content of a file of unknown origin.

    Args:
      path: of the file.
      most: bytes that it may have.

    Returns:
      The bytes; not those that are written to it meanwhile.

    Raises:
      OSError: as open_bounded.
      ValueError: as open_bounded.
    """
    with open_bounded(path, most) as file:
        # Python makes room for as much as it is asked for.
        return file.read(os.fstat(file.fileno()).st_size)


def open_bounded(path: str | os.PathLike, most: int) -> BinaryIO:
    """Opens a file of unknown origin.

    Args:
      path: of the file.
      most: bytes that it may have.

    Returns:
      The open file.

    Raises:
      OSError: it cannot be opened, or is no regular file, whose reading may never end.
      ValueError: it is too large.
    """
    file = open_regular(path)
    size = os.fstat(file.fileno()).st_size
    if size > most:
        file.close()
        raise ValueError(f"it has {size:,} bytes; expected at most {most:,}")
    return file
