"""The folder of a token set: its manifest, and a note beside each shard until the set is whole.

The manifest says from its first moment what the tokens are of, so that the same command goes on
and another one is refused. A shard counts once its note is there; the last call takes the notes in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from mq_jax.storage.files import open_bounded, write_atomically
from mq_jax.storage.schema import (
    ANY,
    FLAG,
    SHA256,
    TEXT,
    Each,
    check,
    choice,
    read_json,
    whole,
)

MANIFEST = "manifest.json"
VERSION = 1

# A million bad images by name.
_MOST_BYTES = 2**28
MOST_SHARD_BYTES = 2**40
_MOST_SHARDS = 10**5

_FILE = re.compile(r"tokens-(\d{5})-of-(\d{5})\.(array_record|json)")

_SHARD = {
    "file": ("a shard's name", lambda value: _FILE.fullmatch(value) is not None),
    "images": whole(0),
    "bytes": whole(0, MOST_SHARD_BYTES),
    "sha256": SHA256,
    "bad": [{"index": whole(0), "name": TEXT}],
}
# What the tokens are of: all that a later call must not change.
_CLAIM = {
    "version": ANY,
    "tokenizer": SHA256,
    "codebook_size": whole(1, 2**32),
    "depth": whole(0, 2**16),
    "downsampling": whole(1, 2**16),
    "shape": (
        "(h, w) or (h, w, J)",
        lambda value: len(value) in (2, 3) and all(whole(1, 2**16)[1](side) for side in value),
    ),
    "dtype": choice("uint8", "uint16", "uint32"),
    "views": [TEXT],
    "preparation": Each(ANY),
    "batch": whole(1),
    "data": {"source": TEXT, "split": TEXT, "origin": TEXT, "rule": TEXT, "sha256": SHA256},
    "records": whole(1),
    "class_names": [TEXT],
    "shard_count": whole(1, _MOST_SHARDS),
}
_SCHEMA = {**_CLAIM, "complete": FLAG, "images": whole(0), "shards": [_SHARD]}


def is_token_set(folder: str | os.PathLike) -> bool:
    """Whether a folder is claimed for a token set, whole or not."""
    return (pathlib.Path(folder) / MANIFEST).is_file()


def shard_file(shard: int, count: int) -> str:
    """The name of a shard's file."""
    return f"tokens-{shard:05d}-of-{count:05d}.array_record"


def begin(folder: pathlib.Path, claim: Mapping[str, Any], *, overwrite: bool) -> None:
    """Claims a folder, or goes on with the set in it.

    Args:
      folder: held by this process; exists.
      claim: what the tokens are of.
      overwrite: whether a token set of something else may be replaced.

    Raises:
      ValueError: the folder holds another token set, or files of something else.
    """
    own = [path for path in folder.iterdir() if path.name != ".lock"]
    foreign = [path for path in own if path.name != MANIFEST and not _FILE.fullmatch(path.name)]
    if foreign:
        raise ValueError(
            f"{folder} holds files that are of no token set, {foreign[0].name} for one; give an "
            "--output of its own."
        )
    if (folder / MANIFEST).exists() and not overwrite:
        require_claim(folder, claim)
        return
    if own and not overwrite:
        raise ValueError(
            f"{folder} holds shards without a {MANIFEST}, which would say what they are of; "
            "copy it again, or give --overwrite to start anew."
        )
    for path in own:
        path.unlink()
    _write(folder, {**claim, "complete": False, "images": 0, "shards": []})


def require_claim(folder: pathlib.Path, claim: Mapping[str, Any]) -> None:
    """Checks that a folder is claimed for these very tokens.

    Args:
      folder: of a token set.
      claim: what the tokens are of.

    Raises:
      ValueError: it is not; names the fields that differ.
    """
    found = read_manifest(folder)
    differing = [name for name in _CLAIM if found[name] != _as_read(claim[name])]
    if differing:
        raise ValueError(
            f"{folder} holds the tokens of something else: {', '.join(differing)} differ(s). Give "
            "another --output, or --overwrite to start anew."
        )


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the manifest of a token set, whole or not.

    Args:
      folder: of the set.

    Returns:
      The manifest.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged, of an unknown version, or of something else.
    """
    path = pathlib.Path(folder) / MANIFEST
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected a token set, which --mode=tokens makes."
        )
    try:
        manifest = read_json(path, {"version": ANY}, most=_MOST_BYTES)
        if "command" in manifest:
            raise ValueError(
                "it is of `mq_jax.tokenize`, whose tokens mq_jax.tokenizers.read_tokens reads"
            )
        if manifest["version"] != VERSION:
            raise ValueError(f"its version is {manifest['version']!r}; expected {VERSION}")
        check(manifest, _SCHEMA)
        _require_consistent(manifest)
    except ValueError as error:
        raise ValueError(
            f"{path} is no manifest of a token set ({error}); copy it again, or make the set anew "
            "with --overwrite."
        ) from error
    return manifest


def write_note(folder: pathlib.Path, shard: Mapping[str, Any]) -> None:
    """Notes that a shard is on the disk, whole.

    Args:
      folder: of the set.
      shard: its file, images, bytes, sha256 and bad images.
    """
    write_atomically(_note(folder, shard["file"]), json.dumps(shard) + "\n")


def whole_shard(folder: pathlib.Path, file: str) -> dict[str, Any] | None:
    """What is known of a shard that is there, byte for byte as it was written.

    Args:
      folder: of the set.
      file: of the shard.

    Returns:
      As write_note takes it; None where the shard is to be made.
    """
    # Whatever is wrong with a note or a shard is mended by making it.
    with contextlib.suppress(OSError, ValueError):
        shard = _known(folder, file)
        if shard is not None and _digest(folder / file) == (shard["bytes"], shard["sha256"]):
            return shard
    return None


def finish(folder: pathlib.Path, most_bad: int) -> dict[str, Any]:
    """Takes the notes of all shards into the manifest, once every one is there.

    Args:
      folder: of the set.
      most_bad: unreadable images that are tolerated.

    Returns:
      The manifest.

    Raises:
      ValueError: a shard is missing, or too many images are unreadable.
    """
    manifest = read_manifest(folder)
    files = [shard_file(i, manifest["shard_count"]) for i in range(manifest["shard_count"])]
    shards = [_known(folder, file) for file in files]
    missing = [file for file, shard in zip(files, shards, strict=True) if shard is None]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} shard(s), the first {missing[0]}; the same command "
            "makes them. Do all processes write into one folder?"
        )
    bad = [image["name"] for shard in shards for image in shard["bad"]]
    images = sum(shard["images"] for shard in shards)
    require_readable(len(bad), bad, manifest["records"], most_bad)
    manifest |= {"complete": True, "images": images, "shards": shards}
    _write(folder, manifest)
    for file in files:
        _note(folder, file).unlink(missing_ok=True)
    return manifest


def require_readable(count: int, names: list[str], records: int, most: int) -> None:
    """Raises where too many images cannot be read.

    Args:
      count: of those that cannot.
      names: theirs.
      records: images in all.
      most: that are tolerated.

    Raises:
      ValueError: there are more, or none can be read.
    """
    if count > most or count == records:
        raise ValueError(
            f"{count} of {records} images cannot be read; at most {most} are tolerated. The first: "
            f"{', '.join(names[:5])}. Repair or remove them, or raise data.max_bad_share."
        )


def _known(folder, file):
    """What a note says of a shard, or else the manifest."""
    note = _note(folder, file)
    if note.exists():
        shard = read_json(note, _SHARD)
        return shard if shard["file"] == file else None
    listed = read_manifest(folder)["shards"]
    return next((shard for shard in listed if shard["file"] == file), None)


def _note(folder, file):
    return folder / file.replace(".array_record", ".json")


def _digest(path):
    """(bytes, sha256) of a regular file."""
    with open_bounded(path, MOST_SHARD_BYTES) as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _require_consistent(manifest):
    """Raises where the fields, each possible alone, do not fit each other."""
    shape, depth = manifest["shape"], manifest["depth"]
    if shape[2:] != ([depth] if depth else []):
        raise ValueError(f"shape is {shape}, depth {depth}")
    if not manifest["views"] or len(manifest["views"]) > 2**12:
        raise ValueError(f"it has {len(manifest['views'])} views")
    count, shards = manifest["shard_count"], manifest["shards"]
    expected = [shard_file(i, count) for i in range(count)] if manifest["complete"] else []
    if [shard["file"] for shard in shards] != expected:
        raise ValueError(f"it lists {len(shards)} shards of {count}")
    if manifest["images"] != sum(shard["images"] for shard in shards):
        raise ValueError(f"images are {manifest['images']}, unlike those of its shards")


def _write(folder, manifest):
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _as_read(value):
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))
