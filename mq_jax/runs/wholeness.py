"""Whether a step folder is whole: read back before it gets its name, compared before its use."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from orbax.checkpoint.path import atomicity

from mq_jax.runs import checksums
from mq_jax.runs.trees import differences, shapes

RECORD = "record/metadata"
_OF_ARRAY = "/.zarray"  # After an array's name: the key of its description.
# Orbax writes it last into a step folder: without it the folder is not a whole checkpoint.
_COMMIT_MARKER = "commit_success.txt"
# Orbax changes these after all others; they say nothing of the arrays.
_WRITTEN_LAST = ("_CHECKPOINT_METADATA", _COMMIT_MARKER)


def committing(
    check: Callable[[pathlib.Path], None], parent: pathlib.Path
) -> type[atomicity.AtomicRenameTemporaryPath]:
    """How Orbax gives a step folder its name, with a check before it.

    Args:
      check: called in the background by the first process, once all files of all processes are
        in the folder it is given; what it raises fails the save.
      parent: of the step folders, as Orbax knows it.

    Returns:
      A class for ocp.CheckpointManagerOptions.
    """

    class Checked(atomicity.AtomicRenameTemporaryPath):
        async def finalize(self):
            # The parts of a step folder take their names this way, too.
            if pathlib.Path(self.get_final()).parent == parent:
                await asyncio.to_thread(check, pathlib.Path(self.get()))
            await super().finalize()

    return Checked


def require_saved(
    folder: pathlib.Path, tree: dict[str, tuple[int, ...]], record: Any, *, thorough: bool
) -> None:
    """Looks whether a step folder can be opened and has all that it should.

    Args:
      folder: that is about to take its name.
      tree: shapes by path, as trees.shapes has them.
      record: what the JSON beside the arrays must say.
      thorough: opens and reads every array; otherwise each must merely be listed.

    Raises:
      ValueError: something is missing or of another shape.
      OSError: the record cannot be read.
    """
    found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if json.dumps(found) != json.dumps(json.loads(json.dumps(record))):
        raise ValueError("the record that was written does not read back")
    store = _store(folder / "tree")
    keys = store.list().result()
    names = [key.decode() for key in keys]
    listed = {name.removesuffix(_OF_ARRAY) for name in names if name.endswith(_OF_ARRAY)}
    missing = sorted({name.replace("/", ".") for name in tree} - listed)
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(tree)} arrays that were written do not read back, "
            f"{missing[0]} among them"
        )
    if thorough:
        # One by one: what is read is dropped at once.
        for key, name in zip(keys, names, strict=True):
            # A file that is not there reads as no bytes, without an error.
            if not store.read(key).result().value:
                raise ValueError(f"{name}, which was written, does not read back")
        handler = ocp.StandardCheckpointHandler()
        differing = differences(shapes(handler.metadata(epath.Path(folder / "tree")).tree), tree)
        if differing:
            raise ValueError(f"what was written does not read back: {differing}")


def seal(folder: pathlib.Path) -> None:
    """Writes the checksums of a step folder into it.

    Args:
      folder: that is about to take its name.

    Raises:
      OSError: a file cannot be read, or they cannot be written.
    """
    checksums.write_checksums(folder, without=_WRITTEN_LAST)


def visible_damage(folder: pathlib.Path) -> str | None:
    """What a look at a step folder tells, without reading the arrays.

    Args:
      folder: that has its name.

    Returns:
      What is missing; None where nothing is.
    """
    missing = [n for n in (_COMMIT_MARKER, "tree", "record") if not (folder / n).exists()]
    return f"no {', '.join(missing)}" if missing else None


def require_unchanged(folder: pathlib.Path, part: int = 0, parts: int = 1) -> None:
    """Compares a step folder with its checksums; one of before there were any passes.

    Args:
      folder: that has its name.
      part: this process's share of the files.
      parts: the number of processes.

    Raises:
      ValueError: a file is missing or does not have the bytes that were written.
      OSError: a file cannot be read.
    """
    if (folder / checksums.FILE).exists():
        checksums.require_unchanged(folder, part, parts)
    elif "sealed" in json.loads((folder / RECORD).read_text(encoding="utf-8")):
        raise ValueError(f"{checksums.FILE} is missing")


def _store(folder: pathlib.Path) -> tensorstore.KvStore:
    """The arrays' bytes by name, through the one file that leads to all others."""
    base = {"driver": "file", "path": f"{folder}/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
