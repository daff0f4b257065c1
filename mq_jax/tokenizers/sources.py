"""The files that a command codes: as it listed them, as it read them, as earlier calls knew them.

`sources.jsonl` lies beside the output and has a line for each file that was read.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from mq_jax.storage.files import read_bytes, write_atomically
from mq_jax.storage.schema import ANY, TEXT, parse, shown
from mq_jax.tokenizers.items import Item

FILE = "sources.jsonl"

# Of ten million files.
_MOST_BYTES = 2**31


def stamp(path: str | os.PathLike) -> list[int] | None:
    """What tells a file from the one that replaces it, without reading either.

    Args:
      path: of the file.

    Returns:
      [bytes, nanoseconds of its last change]; None where it is not there.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


class Sources:
    """What the files were when they were listed, and when earlier calls read them.

    Args:
      folder: of the output; claimed.
      listed: what tells each file from its successor, by name, fit for JSON.
      anew: whether earlier calls do not count.
    """

    def __init__(self, folder: pathlib.Path, listed: Mapping[str, Any], *, anew: bool):
        self._path, self._listed = folder / FILE, listed
        if anew:
            self._path.unlink(missing_ok=True)
        self._known = _known(self._path)
        self._file = open(self._path, "a", encoding="utf-8")

    def changed(self, done: Collection[str]) -> list[str]:
        """The files that are not what earlier calls coded.

        Args:
          done: names of files whose codes or images are there.

        Returns:
          A phrase for each: its name, and whether it is another file or none.
        """
        return [
            f"{shown(name)} is {'another' if name in self._listed else 'gone'}"
            for name, state in self._known.items()
            if name not in self._listed or (name in done and self._listed[name] != state)
        ]

    def note(self, name: str) -> None:
        """Writes down that a file was read as it was listed."""
        state = self._known[name] = self._listed[name]
        self._file.write(json.dumps({"name": name, "state": state}) + "\n")
        # A killed process leaves what it read.
        self._file.flush()

    def watched(self, items: Iterable[Item], root: pathlib.Path) -> Iterator[Item]:
        """Items, without the image of a file that is no more what was listed.

        Args:
          items: from read_images.
          root: of their names.

        Yields:
          The items.
        """
        for item in items:
            if item.image is not None and stamp(root / item.name) != self._listed[item.name]:
                reason = "it was replaced, written to or removed after it was listed"
                item = item._replace(image=None, reason=reason)
            elif item.image is not None:
                self.note(item.name)
            yield item

    def complete(self) -> None:
        """Leaves one line a file, in the order of their names."""
        lines = (json.dumps({"name": n, "state": s}) for n, s in sorted(self._known.items()))
        write_atomically(self._path, "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _known(path: pathlib.Path) -> dict[str, Any]:
    """The last state of each file that was read; a torn line is left out."""
    known = {}
    for line in read_bytes(path, _MOST_BYTES).splitlines() if path.exists() else ():
        try:
            row = parse(line, {"name": TEXT, "state": ANY})
        except ValueError:
            continue
        known[row["name"]] = row["state"]
    return known
