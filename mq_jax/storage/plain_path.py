"""Another name for a folder, for libraries that take a path for a pattern or an address."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
from collections.abc import Iterator

# Orbax globs [ ] ? and *, TensorStore divides at \ and wants UTF-8: no other character is trusted.
_PLAIN = re.compile(r"[\w./ +,=@-]*")
_DESCRIPTORS = pathlib.Path("/proc/self/fd")
# Descriptors from here on: all processes of a run find the same number free, as Orbax expects.
_FIRST = 512


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path of plain characters alone that leads to a folder, in this process.

    Args:
      folder: any legal name; one that is not there yet is left as it is.

    Yields:
      The folder's own absolute path where that is plain, otherwise one through a descriptor that
      is open while the block runs. Where the system has none, the folder's own.
    """
    folder = pathlib.Path(folder).absolute()
    if _PLAIN.fullmatch(str(folder)) or not folder.is_dir() or not _DESCRIPTORS.is_dir():
        yield folder
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(opened)
    try:
        yield _DESCRIPTORS / str(descriptor)
    finally:
        os.close(descriptor)
