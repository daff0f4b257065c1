"""Token files: shards of codes under a manifest, and the claim that a command has on a folder.

A folder that a command writes holds `manifest.json`. It says what made the files, so that the
same command goes on where it was stopped, and no other one mixes its files with them.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mq_jax.workdir import write_atomically

MANIFEST = "manifest.json"
VERSION = 1

# Images of a shard; a few megabytes at 256 codes an image.
SHARD_IMAGES = 4096

# What a command must not change between its first call and a later one.
_CLAIM = ("version", "kind", "tokenizer", "codebook_size", "downsampling", "preparation")


class Tokens(NamedTuple):
    """The codes of some images of one shape.

    Attributes:
      names: of the images, relative paths with "/".
      indices: u[n, h, w], of the smallest unsigned type that holds K - 1.
      sizes: i32[n, 2], height and width of the images before padding, pixels.
    """

    names: list[str]
    indices: np.ndarray
    sizes: np.ndarray


def claim_folder(
    folder: pathlib.Path, claim: Mapping[str, Any], *, force: bool = False
) -> dict[str, Any]:
    """Makes a folder a command's own, or finds that it is.

    Args:
      folder: created if absent.
      claim: "kind" ("tokens" or "images"), "tokenizer" (a fingerprint), "codebook_size",
        "downsampling" and "preparation".
      force: whether to start anew, whatever is there: the shards that its manifest names are
        removed; other files stay, and may be overwritten.

    Returns:
      The manifest: that of the calls before, or a new one.

    Raises:
      ValueError: the folder holds files of something else.
      OSError: it cannot be read or written.
    """
    fresh = {"version": VERSION, **claim, "images": 0, "bad": [], "complete": False}
    if claim["kind"] == "tokens":
        fresh |= {"dtype": index_type(claim["codebook_size"]).name, "shape": None, "shards": []}
    there = (folder / MANIFEST).is_file()
    if there and not force:
        found = read_manifest(folder)
        _require_claim(folder, found, fresh)
        return found
    if there:
        _remove_shards(folder)
    elif folder.is_dir() and any(folder.iterdir()) and not force:
        raise ValueError(
            f"The output {folder} is not empty and has no {MANIFEST}; expected a new folder. "
            "--force writes into it; what has other names stays."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, fresh)
    return fresh


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Args:
      folder: written by `python -m mq_jax.tokenize`.

    Returns:
      The manifest.

    Raises:
      FileNotFoundError: the folder has none.
      ValueError: it is damaged, or of an unknown version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected a folder that `python -m mq_jax.tokenize` wrote."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in (*_CLAIM, "images", "bad", "complete") if name not in manifest]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Start anew with --force, or in another folder."
        ) from error
    if manifest["version"] != VERSION:
        raise ValueError(
            f"{path} is of version {manifest['version']}; expected {VERSION}: read it with the "
            "mq_jax that wrote it, or make it again."
        )
    return manifest


def write_manifest(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, whole or not at all.

    Args:
      folder: exists.
      manifest: fit for JSON.
    """
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


class ShardWriter:
    """Writes codes into the shards of a claimed folder, each of one shape.

    Args:
      folder: claimed for "tokens".
      manifest: from claim_folder; kept up to date, in memory and on disk.
    """

    def __init__(self, folder: pathlib.Path, manifest: dict[str, Any]):
        self._folder, self._manifest = folder, manifest
        self._waiting: dict[tuple[int, int], list[Tokens]] = {}

    def add(self, tokens: Tokens) -> None:
        """Takes the codes of some images; full shards go to the disk."""
        shape = tokens.indices.shape[1:]
        self._waiting.setdefault(shape, []).append(tokens)
        if sum(len(part.names) for part in self._waiting[shape]) >= SHARD_IMAGES:
            self._write(shape)

    def flush(self) -> None:
        """Puts all that was taken on the disk."""
        for shape in list(self._waiting):
            self._write(shape)

    def _write(self, shape):
        """The waiting codes of a shape, as one shard; the manifest names it afterwards."""
        parts = self._waiting.pop(shape)
        names = [name for part in parts for name in part.names]
        manifest = self._manifest
        file = f"tokens-{len(manifest['shards']):05d}.npz"
        arrays = {
            "names": np.array(names),
            "indices": np.concatenate([p.indices for p in parts]).astype(manifest["dtype"]),
            "sizes": np.concatenate([p.sizes for p in parts]).astype(np.int32),
            "tokenizer": np.array(manifest["tokenizer"]),
            "codebook_size": np.array(manifest["codebook_size"]),
        }
        sha256 = _write_shard(self._folder / file, arrays)
        shapes = {tuple(shape)} | ({tuple(manifest["shape"])} if manifest["shape"] else set())
        alone = len(shapes) == 1 and (manifest["shape"] or not manifest["shards"])
        manifest["shape"] = list(shape) if alone else None
        manifest["shards"].append({"file": file, "images": len(names), "sha256": sha256})
        manifest["images"] += len(names)
        write_manifest(self._folder, manifest)


def read_tokens(path: pathlib.Path) -> Iterator[Tokens]:
    """The codes of a folder, or of one shard.

    Args:
      path: of the folder or the .npz file.

    Yields:
      A Tokens for each shard, in their order; nothing is unpickled.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: a shard is damaged.
    """
    if path.is_file():
        yield _read_shard(path)[0]
        return
    for shard in read_manifest(path)["shards"]:
        yield _read_shard(path / shard["file"], shard["sha256"])[0]


def tokenizer_of(path: pathlib.Path) -> str:
    """The fingerprint of the tokenizer that made a folder's or a shard's codes.

    Args:
      path: of the folder or the .npz file.

    Returns:
      64 hexadecimal digits.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: it is damaged, or holds images.
    """
    if path.is_file():
        return _read_shard(path)[1]
    manifest = read_manifest(path)
    if manifest["kind"] != "tokens":
        raise ValueError(f"{path} holds decoded images; expected the output of encode.")
    return manifest["tokenizer"]


def written_names(folder: pathlib.Path, manifest: Mapping[str, Any]) -> set[str]:
    """The images whose codes are in the shards.

    Args:
      folder: claimed for "tokens".
      manifest: its own.

    Returns:
      Their names.

    Raises:
      ValueError: a shard is damaged.
    """
    shards = [_read_shard(folder / s["file"], s["sha256"])[0] for s in manifest["shards"]]
    return {name for shard in shards for name in shard.names}


def index_type(size: int) -> np.dtype:
    """The smallest unsigned type that holds the codes of a codebook.

    Args:
      size: K.

    Returns:
      A NumPy dtype.
    """
    return np.min_scalar_type(size - 1)


def _write_shard(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes an .npz file, whole or not at all; returns its sha256."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        sha256 = hashlib.sha256(temporary.read_bytes()).hexdigest()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256


def _read_shard(path: pathlib.Path, sha256: str = "") -> tuple[Tokens, str]:
    """A shard, and the tokenizer's fingerprint."""
    remedy = "copy it again, or encode anew with --force"
    try:
        if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError("its sha256 is not the manifest's")
        with np.load(path, allow_pickle=False) as stored:
            names = [str(name) for name in stored["names"]]
            tokens = Tokens(names, stored["indices"], stored["sizes"])
            fingerprint = str(stored["tokenizer"])
        if not len(tokens.names) == len(tokens.indices) == len(tokens.sizes):
            raise ValueError("its arrays differ in length")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"The shard {path} is damaged ({error}); {remedy}.") from error
    return tokens, fingerprint


def _require_claim(folder, found: Mapping[str, Any], claim: Mapping[str, Any]) -> None:
    """Raises unless the folder was made by the same command."""
    differing = [
        f"{name} is {_short(found[name])} there, {_short(claim[name])} now"
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


def _remove_shards(folder):
    """Removes the files that a manifest names."""
    try:
        manifest = read_manifest(folder)
    except ValueError:
        return
    shards: Sequence[Mapping[str, Any]] = manifest["shards"] if "shards" in manifest else ()
    for shard in shards:
        # A name alone: nothing outside of the folder.
        (folder / pathlib.PurePath(shard["file"]).name).unlink(missing_ok=True)
