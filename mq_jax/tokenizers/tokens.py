"""Token files: the codes of images in .npz shards, which the manifest of their folder lists."""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from mq_jax.storage.files import read_bytes
from mq_jax.tokenizers.claims import SHARD, read_manifest, write_manifest
from mq_jax.tokenizers.shards import (
    MOST_BYTES,
    Shard,
    Tokens,
    read_shard,
    read_shard_names,
    read_shard_tokenizer,
    twice_named,
    write_shard,
)
from mq_jax.tokenizers.stages import Stages

# Images of a shard; a few megabytes at 256 codes an image.
SHARD_IMAGES = 4096

# However slow the model is, no more than this is lost with the machine.
FLUSH_SECONDS = 120

# Codes that wait for the disk; many large images fill a shard before SHARD_IMAGES do.
SHARD_BYTES = 2**28


class ShardWriter:
    """Writes codes into the shards of a claimed folder, each of one shape, in a thread of its own.

    Args:
      folder: claimed by encode.
      manifest: its own; kept up to date, in memory and on disk.
      stages: told what writing takes.
    """

    def __init__(self, folder: pathlib.Path, manifest: dict[str, Any], stages: Stages):
        self._folder, self._manifest = folder, manifest
        self._waiting: dict[tuple[int, ...], list[Tokens]] = {}
        self._count, self._bytes, self._flushed = 0, 0, time.monotonic()
        # One thread, so that shards are written in the order of their images.
        self._pool, self._writing = ThreadPoolExecutor(1), collections.deque[Future]()
        self._write_all = stages.timed("writing", self._write_shards)

    def add(self, tokens: Tokens) -> None:
        """Takes the codes of some images, which are on the disk soon.

        Args:
          tokens: of images of one shape.

        Raises:
          OSError: codes that were taken before cannot be written.
        """
        self._waiting.setdefault(tokens.indices.shape[1:], []).append(tokens)
        self._count += len(tokens.names)
        self._bytes += tokens.indices.nbytes
        late = time.monotonic() - self._flushed > FLUSH_SECONDS
        if self._count >= SHARD_IMAGES or self._bytes >= SHARD_BYTES or late:
            # One is written and one waits at most, and the memory of a third is being filled.
            while len(self._writing) > 1:
                self._settle_first()
            self._hand_over()
        while self._writing and self._writing[0].done():
            self._settle_first()

    def flush(self) -> None:
        """Puts all that was taken on the disk.

        Raises:
          OSError: some of it cannot be written; the rest is there.
        """
        self._hand_over()
        self.settle()

    def settle(self) -> None:
        """Waits until the shards that are full are on the disk.

        Raises:
          OSError: one cannot be written; the rest is there.
        """
        wait(self._writing)
        while self._writing:
            self._settle_first()

    def _hand_over(self):
        taken, self._waiting = self._waiting, {}
        self._writing.append(self._pool.submit(self._write_all, taken))
        self._count, self._bytes, self._flushed = 0, 0, time.monotonic()

    def _settle_first(self):
        # Taken off only once it is there: who is interrupted waits for it again.
        wait([self._writing[0]])
        self._writing.popleft().result()

    def _write_shards(self, taken):
        for shape, parts in taken.items():
            self._write(shape, parts)

    def _write(self, shape, parts):
        """One shard; the manifest names it afterwards."""
        manifest = self._manifest
        names = [name for part in parts for name in part.names]
        file = f"tokens-{len(manifest['shards']):05d}.npz"
        arrays = {
            "names": np.array(names),
            "indices": np.concatenate([p.indices for p in parts]).astype(manifest["dtype"]),
            "sizes": np.concatenate([p.sizes for p in parts]).astype(np.int32),
            "tokenizer": np.array(manifest["tokenizer"]),
            "codebook_size": np.array(manifest["codebook_size"]),
        }
        sha256 = write_shard(self._folder / file, arrays)
        first = not manifest["shards"]
        if not first and manifest["shape"] != list(shape):
            manifest["shape"] = None
        elif first:
            manifest["shape"] = list(shape)
        manifest["shards"].append({"file": file, "images": len(names), "sha256": sha256})
        manifest["images"] += len(names)
        write_manifest(self._folder, manifest)


def read_tokens(path: str | os.PathLike, downsampling: int | None = None) -> Iterator[Tokens]:
    """The codes of a folder, or of one shard.

    Args:
      path: of the folder or the .npz file.
      downsampling: pixels to a code, along one side, which the sizes must fit; None: unknown.

    Yields:
      A Tokens for each shard, in their order; nothing is unpickled.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: a shard is damaged, or the folder holds images.
    """
    for shard in _shards(path):
        yield read_shard(shard, downsampling).tokens


def read_names(path: str | os.PathLike) -> list[str]:
    """The images of a folder of codes, or of one shard, without their codes.

    Args:
      path: of the folder or the .npz file.

    Returns:
      Names in the order of read_tokens.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: a shard is damaged, a name occurs twice, or the folder holds images.
    """
    names = [name for shard in _shards(path) for name in read_shard_names(shard)]
    if twice := twice_named(names):
        raise ValueError(
            f"{path} has the codes of {twice} twice; expected those of each image once. Encode "
            "anew with --force."
        )
    return names


def shard_states(path: str | os.PathLike) -> dict[str, str]:
    """What tells each shard from one that replaces it.

    Args:
      path: of the folder or the .npz file.

    Returns:
      The sha256 of each file, by its name; that of the manifest, which reading then checks.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: it is damaged, or holds images.
    """
    return {
        shard.path.name: shard.sha256
        or hashlib.sha256(read_bytes(shard.path, MOST_BYTES)).hexdigest()
        for shard in _shards(path)
    }


def token_source(path: str | os.PathLike) -> tuple[str, bool]:
    """Which tokenizer made the codes, and whether all of them are there.

    Args:
      path: of the folder or the .npz file.

    Returns:
      Its fingerprint; False where encoding was stopped before its end.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: it is damaged, or holds images.
    """
    if pathlib.Path(path).is_file():
        return read_shard_tokenizer(Shard(pathlib.Path(path))), True
    manifest = _token_manifest(path)
    return manifest["tokenizer"], manifest["complete"]


def written_names(folder: pathlib.Path) -> set[str]:
    """The images whose codes are in the shards of a folder.

    Args:
      folder: claimed by encode, with or without shards.

    Returns:
      Their names.

    Raises:
      ValueError: a shard is damaged.
    """
    return {name for part in read_tokens(folder) for name in part.names}


def remove_shards(folder: pathlib.Path) -> None:
    """Removes the shards of a folder, whatever its manifest says of them.

    Args:
      folder: claimed by encode, to start anew.
    """
    for path in folder.glob("tokens-*.npz"):
        if SHARD.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _token_manifest(folder):
    manifest = read_manifest(folder)
    if manifest["command"] != "encode":
        raise ValueError(f"{folder} holds decoded images; expected the output of encode.")
    return manifest


def _shards(path: str | os.PathLike) -> list[Shard]:
    """The shards of a folder; or one shard."""
    path = pathlib.Path(path)
    if path.is_file():
        return [Shard(path)]
    manifest = _token_manifest(path)
    names = "tokenizer", "codebook_size", "depth", "downsampling"
    shared = {name: manifest[name] for name in names}
    return [
        Shard(path / shard["file"], shard["sha256"], shard["images"], **shared)
        for shard in manifest["shards"]
    ]
