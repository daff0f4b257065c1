"""Checksums of the files of a folder: written beside them, compared before they are used."""

from __future__ import annotations

import json
import os
import pathlib
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

FILE = "checksums.json"

_BLOCK = 2**23  # Bytes under one checksum: a large file keeps several threads busy.
_BUFFER = 2**18  # Bytes read at once: they stay in a processor's cache.
_PAGE = 2**12  # Bytes under one sum.
_THREADS = min(8, os.cpu_count() or 1)


def write_checksums(folder: pathlib.Path, without: Iterable[str] = ()) -> None:
    """Writes the checksums of all files of a folder into it.

    Args:
      folder: its files are complete.
      without: paths in it that are still to change.

    Raises:
      OSError: a file cannot be read, or the checksums cannot be written.
    """
    names = [name for name in _files(folder) if name not in {FILE, *without}]
    text = json.dumps(_checksums(folder, names), indent=1) + "\n"
    # Not forced to the disk: the files that it speaks of are not either.
    (folder / FILE).write_text(text, encoding="utf-8")


def require_unchanged(folder: pathlib.Path, part: int = 0, parts: int = 1) -> None:
    """Compares files with their checksums.

    Args:
      folder: with what write_checksums left there.
      part: which of the parts is compared, so that several processes share the work.
      parts: their number.

    Raises:
      ValueError: a file differs or is missing, or the checksums cannot be read.
      OSError: a file cannot be read.
    """
    stored = _stored(folder)
    names = sorted(stored)[part::parts]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    found = _checksums(folder, names)
    differing = [name for name in names if found[name] != stored[name]]
    if differing:
        others = f", nor do {len(differing) - 1} others" if len(differing) > 1 else ""
        raise ValueError(f"{differing[0]} does not have the bytes that were written{others}")


def is_unchanged(folder: pathlib.Path, name: str) -> bool:
    """Whether one file has the bytes that were written; true where no checksums were.

    Args:
      folder: with what write_checksums left there, or without.
      name: path of the file in it.

    Returns:
      Whether they agree.
    """
    if not (folder / FILE).exists():
        return True
    try:
        return _stored(folder).get(name) == _checksums(folder, [name])[name]
    except (OSError, ValueError):
        return False


def _stored(folder: pathlib.Path) -> dict[str, list[int]]:
    """The checksums by path, as they stand in the folder."""
    try:
        stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{FILE} cannot be read ({error})") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{FILE} holds a {type(stored).__name__}, not an object")
    return stored


def _files(folder: pathlib.Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _checksums(folder: pathlib.Path, names: Iterable[str]) -> dict[str, list[int]]:
    """By path: the size in bytes, then the checksum of each block."""
    sizes = {name: (folder / name).stat().st_size for name in names}
    blocks = [(name, start) for name, size in sizes.items() for start in range(0, size, _BLOCK)]
    with ThreadPoolExecutor(_THREADS) as threads:
        sums = threads.map(lambda block: _block_sum(folder / block[0], block[1]), blocks)
        found = {name: [size] for name, size in sizes.items()}
        for (name, _), checksum in zip(blocks, sums, strict=True):
            found[name].append(checksum)
    return found


def _block_sum(path: pathlib.Path, start: int) -> int:
    """The CRC-32 over sums of 64-bit words, one of each page, of the block that starts there.

    A bit that flips always shows, and so do pages that change places; a third of the work of a
    CRC over all bytes, most of it the reading.
    """
    words = np.zeros(_BUFFER // 8, np.uint64)
    buffer = memoryview(words).cast("B")
    checksum, end = 0, start + _BLOCK
    with open(path, "rb") as file:
        file.seek(start)
        while start < end and (count := file.readinto(buffer[: end - start])):
            words.view(np.uint8)[count:] = 0
            checksum = zlib.crc32(words.reshape(-1, _PAGE // 8).sum(1), checksum)
            start += count
    return checksum
