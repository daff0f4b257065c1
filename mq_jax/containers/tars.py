"""Tar shards in WebDataset's layout: which samples one has, and where their images lie.

Nothing is ever extracted: names serve to tell samples apart, and for people.
"""

import json
import os
import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from mq_jax.containers.extents import Extent
from mq_jax.devices.reading import open_regular

# A class, or a sample's description; images are of any size.
_MOST_TEXT = 2**20
_BLOCK = tarfile.BLOCKSIZE


def tar_extents(path: pathlib.Path, endings: Sequence[str], label_key: str) -> Iterator[Extent]:
    """Finds the images of a shard.

    A sample is of files one after another whose names are equal up to the first dot: an image, and
    beside it its class in `.cls`, a number or a name, or in `.json` under a key.

    Args:
      path: of the shard, not compressed.
      endings: of images, in lower case and with their dot.
      label_key: in `.json`; "" is "label".

    Yields:
      The extent of each sample, in order; one without an image has size -1.

    Raises:
      ValueError: it is no tar file, damaged or not whole.
    """
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            key, members = None, {}
            for member in _regular(archive):
                own, ending = _divided(member.name)
                if own != key and members:
                    yield _sample(file, key, members, endings, label_key)
                    members = {}
                key = own
                members.setdefault(ending, (member.offset_data, member.size))
            _require_end(file, archive.offset)
            if members:
                yield _sample(file, key, members, endings, label_key)
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"{path} is no whole tar file ({error}); copy it again.") from error


def _regular(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members that are files as they are, not hidden."""
    reached = -1
    while (member := archive.next()) is not None:
        # Else Python keeps all of them.
        archive.members = []
        if member.size < 0 or archive.offset <= reached:
            raise tarfile.ReadError(f"a member of impossible size at byte {member.offset}")
        reached = archive.offset
        hidden = member.name.rpartition("/")[2].startswith(".")
        if member.isreg() and not member.issparse() and not hidden:
            yield member


def _sample(
    file: BinaryIO, key: str, members: dict, endings: Sequence[str], label_key: str
) -> Extent:
    """The extent of a sample, its members by their endings."""
    label = _label(file, members, label_key)
    images = [ending for ending in members if f".{ending}".endswith(tuple(endings))]
    if not images:
        return Extent(0, -1, 0, 0, 0, 0, key, label)
    # Beside 7.jpg may lie 7.mask.png.
    offset, size = members[min(images, key=lambda ending: ending.count("."))]
    return Extent(offset, size, 0, size, 0, size, key, label)


def _label(file: BinaryIO, members: dict, label_key: str) -> str:
    if "cls" in members:
        return _text(file, *members["cls"]).decode(errors="replace").strip()
    if "json" not in members:
        return ""
    try:
        told = json.loads(_text(file, *members["json"]))
    except (ValueError, RecursionError):
        return ""
    label = told.get(label_key or "label") if isinstance(told, dict) else None
    return str(label) if isinstance(label, str) or type(label) is int else ""


def _text(file: BinaryIO, offset: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, offset) if size <= _MOST_TEXT else b""


def _require_end(file: BinaryIO, offset: int) -> None:
    """Raises where the members end before the mark that ends a tar file.

    Python takes what it cannot understand, and the end of the file, for the end of the members.
    """
    if os.pread(file.fileno(), _BLOCK, offset) != bytes(_BLOCK):
        raise tarfile.ReadError(f"neither a member nor the end at byte {offset}")


def _divided(name: str) -> tuple[str, str]:
    """The key of a sample, with its folders, and the ending of one of its files."""
    folder, _, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, ending.lower()
