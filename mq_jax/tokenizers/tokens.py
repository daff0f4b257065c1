"""Token files: the codes of images in .npz shards, which the manifest of their folder lists."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pathlib
import re
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mq_jax.devices.reading import open_regular, read_regular
from mq_jax.runs.claims import read_manifest, write_manifest
from mq_jax.runs.files import replacing

# Images of a shard; a few megabytes at 256 codes an image.
SHARD_IMAGES = 4096

# However slow the model is, no more than this is lost with the machine.
FLUSH_SECONDS = 120

_SHARD = re.compile(r"tokens-\d{5,}\.npz")


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


class ShardWriter:
    """Writes codes into the shards of a claimed folder, each of one shape.

    Args:
      folder: claimed by encode.
      manifest: its own; kept up to date, in memory and on disk.
    """

    def __init__(self, folder: pathlib.Path, manifest: dict[str, Any]):
        self._folder, self._manifest = folder, manifest
        self._waiting: dict[tuple[int, int], list[Tokens]] = {}
        self._count, self._flushed = 0, time.monotonic()

    def add(self, tokens: Tokens) -> None:
        """Takes the codes of some images, which are on the disk soon."""
        self._waiting.setdefault(tokens.indices.shape[1:], []).append(tokens)
        self._count += len(tokens.names)
        late = time.monotonic() - self._flushed > FLUSH_SECONDS
        if self._count >= SHARD_IMAGES or late:
            self.flush()

    def flush(self) -> None:
        """Puts all that was taken on the disk."""
        for shape in list(self._waiting):
            self._write(shape, self._waiting.pop(shape))
        self._count, self._flushed = 0, time.monotonic()

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
        sha256 = _write_shard(self._folder / file, arrays)
        first = not manifest["shards"]
        if not first and manifest["shape"] != list(shape):
            manifest["shape"] = None
        elif first:
            manifest["shape"] = list(shape)
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
      ValueError: a shard is damaged, or the folder holds images.
    """
    for shard, sha256 in _shards(path):
        yield _read_shard(shard, sha256)[0]


def read_names(path: pathlib.Path) -> list[str]:
    """The images of a folder of codes, or of one shard, without their codes.

    Args:
      path: of the folder or the .npz file.

    Returns:
      Names in the order of read_tokens, which alone checks the manifest's hashes.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: a shard is damaged, or the folder holds images.
    """
    return [name for shard, _ in _shards(path) for name in _read_names(shard)]


def token_source(path: pathlib.Path) -> tuple[str, bool]:
    """Which tokenizer made the codes, and whether all of them are there.

    Args:
      path: of the folder or the .npz file.

    Returns:
      Its fingerprint; False where encoding was stopped before its end.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: it is damaged, or holds images.
    """
    if path.is_file():
        return _read_shard(path)[1], True
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


def remove_shards(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Removes the shards that a replaced manifest names.

    Args:
      folder: of the manifest.
      manifest: may be of images, or empty.
    """
    for shard in manifest["shards"] if "shards" in manifest else ():
        # Nothing else that an edited manifest may name.
        if _SHARD.fullmatch(shard["file"]):
            (folder / shard["file"]).unlink(missing_ok=True)


def _token_manifest(folder):
    manifest = read_manifest(folder)
    if manifest["command"] != "encode":
        raise ValueError(f"{folder} holds decoded images; expected the output of encode.")
    return manifest


def _shards(path: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """The shards of a folder and the hashes that its manifest has; or one shard, without."""
    if path.is_file():
        return [(path, "")]
    shards = _token_manifest(path)["shards"]
    for shard in shards:
        if not _SHARD.fullmatch(shard["file"]):
            raise ValueError(f"The manifest of {path} names {shard['file']!r}, which is no shard.")
    return [(path / shard["file"], shard["sha256"]) for shard in shards]


def _write_shard(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes an .npz file, whole or not at all; returns its sha256."""
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def _read_shard(path: pathlib.Path, sha256: str = "") -> tuple[Tokens, str]:
    """A shard, and the tokenizer's fingerprint."""
    with _damage_named(path):
        data = read_regular(path)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("its sha256 is not the manifest's")
        with _archive(io.BytesIO(data)) as stored:
            names = [str(name) for name in stored["names"]]
            tokens = Tokens(names, stored["indices"], stored["sizes"])
            fingerprint, size = str(stored["tokenizer"]), int(stored["codebook_size"])
        _check_tokens(tokens, size)
    return tokens, fingerprint


def _read_names(path: pathlib.Path) -> list[str]:
    """The names of a shard, a member of the archive that is read without the codes."""
    with _damage_named(path), open_regular(path) as file, _archive(file) as stored:
        return [str(name) for name in stored["names"]]


def _archive(file: BinaryIO) -> np.lib.npyio.NpzFile:
    """The arrays of an .npz file, each read when it is asked for; nothing is unpickled."""
    stored = np.load(file, allow_pickle=False)
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise ValueError("it is no .npz file")
    return stored


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    """Turns whatever a shard's reading raises into an error that names it and says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(
            f"The shard {path} is missing; copy it again, or encode anew with --force."
        ) from error
    # NumPy raises what the archive, the compression and the header raise.
    except (
        *(OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, TypeError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(
            f"The shard {path} is damaged ({error}); copy it again, or encode anew with --force."
        ) from error


def _check_tokens(tokens: Tokens, size: int) -> None:
    """Raises unless the arrays are what they should be."""
    names, indices, sizes = tokens
    if indices.ndim != 3 or indices.dtype.kind != "u" or sizes.shape != (len(names), 2):
        raise ValueError(f"indices are {indices.dtype}{indices.shape}, sizes {sizes.shape}")
    if len(indices) != len(names) or (indices.size and indices.max() >= size):
        raise ValueError(f"{len(names)} names, {len(indices)} rows of codes below {size}")
