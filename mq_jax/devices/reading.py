"""Reading that cannot hang: regular files alone, and reads that the end of a process leaves behind.

Opening a FIFO waits for a writer, reading a device may never end, and a call into a mount whose
server is gone returns when that does.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading, or what a link to one names; never waits for a writer.

    Args:
      path: of the file.

    Returns:
      The open file, of bytes.

    Raises:
      OSError: there is no such file, or it is a folder, a FIFO, a socket or a device.
    """
    return open(path, "rb", opener=_opener)


def read_regular(path: str | os.PathLike) -> bytes:
    """The content of a regular file.

    Args:
      path: of the file.

    Returns:
      All its bytes.

    Raises:
      OSError: as open_regular.
    """
    with open(path, "rb", buffering=0, opener=_opener) as file:
        return file.readall()


def apart(function: Callable[[], Any]) -> Any:
    """The value of a function that a thread of its own computes, which nobody has to wait for.

    A signal interrupts this wait even where the function hangs, and the process can end.

    Args:
      function: reads something.

    Returns:
      What it returns.

    Raises:
      Exception: what it raises.
    """
    results, errors = [], []

    def compute():
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def end_within(seconds: float, code: int) -> None:
    """Ends this process even if threads that Python waits for at the end hang in a read.

    Args:
      seconds: that an orderly end may take.
      code: of the exit where it takes longer.
    """

    def end():
        time.sleep(seconds)
        os._exit(code)

    threading.Thread(target=end, daemon=True).start()


def _opener(path, flags: int) -> int:
    """The descriptor of a regular file; what the path was when it was listed tells nothing."""
    try:
        # The flag is for FIFOs and devices; it changes nothing about regular files.
        descriptor = os.open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        # What opening a socket says.
        if error.errno == errno.ENXIO:
            raise _irregular(path, "a socket or a FIFO") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _irregular(path, _KINDS[stat.S_IFMT(mode)])
    return descriptor


def _irregular(path, kind: str) -> OSError:
    number = errno.EISDIR if kind == "a folder" else errno.EINVAL
    return OSError(number, f"{kind}; expected a regular file", os.fspath(path))
