"""Files that appear whole or not at all, how they are read back, and their sizes."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from mq_jax.devices.reading import read_regular

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
    # The process id keeps several processes from sharing a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file.

    Args:
      path: of a regular file.

    Returns:
      What it holds.

    Raises:
      OSError: there is no such file, or it is none.
      ValueError: it is no JSON, or nested too deeply for any of ours.
    """
    try:
        return json.loads(read_regular(path).decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def size_of(path: pathlib.Path) -> int:
    """The bytes of a file, or of all files of a folder.

    Args:
      path: of either.

    Returns:
      Their number.
    """
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
