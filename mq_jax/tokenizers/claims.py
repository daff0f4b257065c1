"""The claim that a command has on the folder it writes, so that it goes on and nothing mixes in.

The folder holds `manifest.json`, which says what made the files. The same command goes on where it
was stopped; another one is refused, and so is a second process at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mq_jax.storage.files import write_atomically
from mq_jax.storage.lock import held
from mq_jax.storage.schema import (
    ANY,
    FLAG,
    SHA256,
    TEXT,
    Each,
    Nullable,
    check,
    choice,
    read_json,
    shown,
    whole,
)

MANIFEST = "manifest.json"
VERSION = 1

# What a command must not change between its first call and a later one.
_CLAIM = (
    *("version", "command", "input", "tokenizer", "codebook_size", "depth", "downsampling"),
    "preparation",
)
# A data set of ten million images, a tenth of them bad.
_MOST_BYTES = 2**28

SHARD = re.compile(r"tokens-\d{5,9}\.npz")
_SCHEMA = {
    "version": ANY,
    "command": choice("encode", "decode", "reconstruct"),
    "input": TEXT,
    "tokenizer": TEXT,
    "codebook_size": whole(1, 2**32),
    "depth": whole(0, 2**16),
    "downsampling": whole(1, 2**16),
    "preparation": Nullable(Each(ANY)),
    "images": whole(0),
    "bad": [{"name": TEXT, "reason": TEXT}],
    "complete": FLAG,
}
_TOKENS_SCHEMA = {
    "shards": [
        {
            "file": ("tokens-NNNNN.npz", lambda value: SHARD.fullmatch(value) is not None),
            "images": whole(0),
            "sha256": SHA256,
        }
    ],
    "shape": Nullable([whole(1)]),
    "dtype": choice("uint8", "uint16", "uint32", "uint64"),
}


def make_claim(
    command: str, source: pathlib.Path, tokenizer: Any, preparation: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a command claims a folder with.

    Args:
      command: "encode", "decode" or "reconstruct".
      source: the input; its name is told by a hash, so that no path leaves the machine.
      tokenizer: its fingerprint and sizes.
      preparation: of images, None where they are left as they are.

    Returns:
      The fields that must stay the same.
    """
    return {
        "version": VERSION,
        "command": command,
        "input": hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16],
        "tokenizer": tokenizer.fingerprint,
        "codebook_size": tokenizer.size,
        "depth": tokenizer.depth,
        "downsampling": tokenizer.downsampling,
        "preparation": preparation,
    }


@contextlib.contextmanager
def claimed(
    folder: str | os.PathLike, claim: Mapping[str, Any], *, force: bool
) -> Iterator[dict[str, Any]]:
    """A folder that is a command's own, and no other process's, while the block runs.

    Args:
      folder: created if absent.
      claim: from make_claim.
      force: whether to start anew, whatever is there.

    Yields:
      The manifest: that of the calls before, or a new one.

    Raises:
      ValueError: the folder holds files of something else, or another process writes into it.
      OSError: it cannot be read or written.
    """
    folder = pathlib.Path(folder)
    _require_own(folder, claim, force)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, "give another --output"):
        resumed = (folder / MANIFEST).is_file() and not force
        fresh = {**claim, "images": 0, "bad": [], "complete": False}
        if _of_tokens(fresh):
            dtype = index_type(claim["codebook_size"]).name
            fresh |= {"dtype": dtype, "shape": None, "shards": []}
        manifest = read_manifest(folder) if resumed else fresh
        manifest["complete"] = False
        write_manifest(folder, manifest)
        yield manifest


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Args:
      folder: written by `python -m mq_jax.tokenize`.

    Returns:
      The manifest.

    Raises:
      FileNotFoundError: the folder has none.
      ValueError: it is damaged, or of an unknown version.
    """
    path = pathlib.Path(folder) / MANIFEST
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected a folder that `python -m mq_jax.tokenize` wrote."
        )
    try:
        manifest = read_json(path, {"version": ANY}, most=_MOST_BYTES)
        if manifest["version"] == VERSION:
            # Manifests of before it are of one code a position.
            manifest.setdefault("depth", 0)
            check(manifest, _SCHEMA)
            if _of_tokens(manifest):
                check(manifest, _TOKENS_SCHEMA)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}). Start anew with --force, or in another folder."
        ) from error
    if manifest["version"] != VERSION:
        raise ValueError(
            f"{path} is of version {shown(manifest['version'])}; expected {VERSION}: read it with "
            "the mq_jax that wrote it, or make it again."
        )
    return manifest


def write_manifest(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, whole or not at all.

    Args:
      folder: exists.
      manifest: fit for JSON.
    """
    # Escaped: a file's name need not be text that UTF-8 can hold.
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def index_type(size: int) -> np.dtype:
    """The smallest unsigned type that holds the codes of a codebook.

    Args:
      size: K.

    Returns:
      A NumPy dtype.
    """
    return np.min_scalar_type(size - 1)


def _of_tokens(manifest):
    return manifest["command"] == "encode"


def _require_own(folder, claim, force) -> None:
    """Raises unless the folder may be written to."""
    if not folder.exists():
        return
    if (folder / MANIFEST).is_file():
        if not force:
            _require_claim(folder, read_manifest(folder), claim)
    elif any(path.name[0] != "." for path in folder.iterdir()) and not force:
        raise ValueError(
            f"The output {folder} is not empty and has no {MANIFEST}; expected a new folder. "
            "--force writes into it; what has other names stays."
        )


def _require_claim(folder, found: Mapping[str, Any], claim: Mapping[str, Any]) -> None:
    """Raises unless the folder was made by the same command."""
    differing = [
        "the input is another folder or file"
        if name == "input"
        else f"{name} is {_short(found[name])} there, {_short(claim[name])} now"
        for name in _CLAIM
        if found[name] != claim[name]
    ]
    if differing:
        raise ValueError(
            f"The output {folder} is of another command: {'; '.join(differing)}. Give another "
            "--output, or start anew with --force."
        )


def _short(value):
    """A fingerprint by its beginning."""
    return f"{value[:16]}..." if isinstance(value, str) and len(value) > 32 else repr(value)
