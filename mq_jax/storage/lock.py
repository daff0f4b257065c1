"""One command at a time writes into a folder, and says who it is to those it keeps out."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import shlex
import socket
import sys
from collections.abc import Iterator

from absl import logging

from mq_jax.storage.files import remove_leftovers

FILE = ".lock"

# What file systems without locks answer.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def held(folder: pathlib.Path, remedy: str) -> Iterator[None]:
    """Keeps others out of a folder while the block runs; what killed ones left there goes.

    The system lets go when this process ends, however it does.

    Args:
      folder: exists.
      remedy: what else may be done than to wait, as "give another --output".

    Raises:
      ValueError: another process holds it; says which.
      OSError: the folder cannot be written to.
    """
    path = folder / FILE
    descriptor = _locked(path, remedy)
    try:
        remove_leftovers(folder)
        yield
    finally:
        # Before it is let go: whoever waits for this very file sees that it is gone.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: pathlib.Path, remedy: str) -> int:
    """The descriptor of the lock file, locked, with this process's name in it."""
    while True:
        # A file, not its folder: on a network file system only what is open for writing locks.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor, path, remedy)
            # Its holder may have removed it between the two calls.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_myself()).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int, path: pathlib.Path, remedy: str) -> None:
    """Locks, or raises with the name of who has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _told(os.pread(descriptor, 2**14, 0))
        raise ValueError(
            f"{holder} writes into {path.parent}; wait until it ends, or {remedy}."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.warning(
            "%s is on a file system without locks; see to it that nothing else writes there",
            path.parent,
        )


def _myself() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv)[:2000],
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    }


def _told(content: bytes) -> str:
    """Who holds a lock, in words; it may be writing its name at this very moment."""
    try:
        who = json.loads(content)
        return (
            f"Another process ({who['pid']} on {who['host']}, since {who['since']}: "
            f"{who['command']})"
        )
    except (ValueError, KeyError, TypeError):
        return "Another process"
