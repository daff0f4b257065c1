"""One shard of tokens: its arrays, read within limits, and what they must be to fit each other."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mq_jax.storage.archive import Stored, read_arrays
from mq_jax.storage.files import read_bytes, replacing
from mq_jax.storage.schema import shown

# What a shard may have, on the disk and decompressed, and an image that its codes make.
MOST_BYTES = 2**31
MOST_PIXELS = 2**28

_STORED = {
    "names": Stored("U", 1),
    "indices": Stored("u", (3, 4)),
    "sizes": Stored("iu", 2),
    "tokenizer": Stored("U", 0),
    "codebook_size": Stored("iu", 0),
}


class Tokens(NamedTuple):
    """The codes of some images of one shape.

    Attributes:
      names: of the images, relative paths with "/".
      indices: u[n, h, w], or u[n, h, w, J] where a position has J codes, of the smallest unsigned
        type that holds K - 1.
      sizes: i32[n, 2], height and width of the images before padding, pixels.
    """

    names: list[str]
    indices: np.ndarray
    sizes: np.ndarray


class Shard(NamedTuple):
    """A shard, and what the manifest says of it; None: there is no manifest."""

    path: pathlib.Path
    sha256: str | None = None
    images: int | None = None
    tokenizer: str | None = None
    codebook_size: int | None = None
    depth: int | None = None
    downsampling: int | None = None


class Content(NamedTuple):
    """What a shard holds."""

    tokens: Tokens
    tokenizer: str


def write_shard(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes a shard, whole or not at all.

    Args:
      path: of the .npz file.
      arrays: of Tokens, "tokenizer" and "codebook_size".

    Returns:
      The file's sha256.

    Raises:
      OSError: it cannot be written.
    """
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def read_shard(shard: Shard, downsampling: int | None = None) -> Content:
    """Reads a shard that is what its manifest says, and whose arrays fit each other.

    Args:
      shard: where it is.
      downsampling: pixels to a code, along one side, which the sizes must fit; None: unknown.

    Returns:
      A Content.

    Raises:
      ValueError: it is missing, damaged or too large.
    """
    with _damage_named(shard.path):
        stored = read_arrays(_verified(shard), _STORED, most=MOST_BYTES)
        tokens = Tokens(_names(stored["names"]), stored["indices"], stored["sizes"])
        fingerprint, size = str(stored["tokenizer"]), int(stored["codebook_size"])
        for what, own, said in (
            ("images", len(tokens.names), shard.images),
            ("tokenizer", fingerprint, shard.tokenizer),
            ("codebook_size", size, shard.codebook_size),
            ("depth", sum(tokens.indices.shape[3:]), shard.depth),
        ):
            if said not in (None, own):
                raise ValueError(f"{what} is {shown(own)}; the manifest says {shown(said)}")
        _check_tokens(tokens, size)
        _check_sizes(tokens, downsampling or shard.downsampling)
    return Content(tokens, fingerprint)


def read_shard_names(shard: Shard) -> list[str]:
    """The names of a shard that is what its manifest says, without the codes.

    Args:
      shard: where it is.

    Returns:
      The names, each once.

    Raises:
      ValueError: it is missing or damaged.
    """
    with _damage_named(shard.path):
        names = {"names": _STORED["names"]}
        return _names(read_arrays(_verified(shard), names, most=MOST_BYTES)["names"])


def read_shard_tokenizer(shard: Shard) -> str:
    """The fingerprint of the tokenizer that made a shard, without the codes.

    Args:
      shard: where it is.

    Returns:
      The fingerprint.

    Raises:
      ValueError: it is missing or damaged.
    """
    with _damage_named(shard.path):
        fingerprint = {"tokenizer": _STORED["tokenizer"]}
        return str(read_arrays(_verified(shard), fingerprint, most=MOST_BYTES)["tokenizer"])


def twice_named(names: list[str]) -> str | None:
    """The first name that occurs more than once, as messages show it; None: each is there once."""
    if len(set(names)) == len(names):
        return None
    return shown(next(name for name, n in collections.Counter(names).items() if n > 1))


def _verified(shard: Shard) -> bytes:
    """The bytes of a shard, those that the manifest speaks of."""
    data = read_bytes(shard.path, MOST_BYTES)
    if shard.sha256 is not None and hashlib.sha256(data).hexdigest() != shard.sha256:
        raise ValueError("its sha256 is not the manifest's")
    return data


def _names(array: np.ndarray) -> list[str]:
    """The names, each once."""
    names = array.tolist()
    if twice := twice_named(names):
        raise ValueError(f"it names {twice} twice")
    return names


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    """Turns whatever a shard's reading raises into an error that names it and says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(
            f"The shard {path} is missing; copy it again, or encode anew with --force."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The shard {path} is damaged ({error}); copy it again, or encode anew with --force."
        ) from error


def _check_tokens(tokens: Tokens, size: int) -> None:
    """Raises unless the arrays are what they should be."""
    names, indices, sizes = tokens
    if 0 in indices.shape[1:] or sizes.shape != (len(names), 2):
        raise ValueError(f"indices are {indices.dtype}{indices.shape}, sizes {sizes.shape}")
    if len(indices) != len(names) or (indices.size and indices.max() >= size):
        raise ValueError(f"{len(names)} names, {len(indices)} rows of codes below {size}")
    if sizes.size and sizes.min() < 1:
        raise ValueError(f"a size is {sizes.min()}; expected at least 1 pixel")


def _check_sizes(tokens: Tokens, downsampling: int | None) -> None:
    """Raises where codes cannot make the images' sizes, or more than a machine holds."""
    if downsampling is None:
        return
    made = np.multiply(tokens.indices.shape[1:3], downsampling, dtype=np.int64)
    if (tokens.sizes > made).any():
        raise ValueError(
            f"a size is {tokens.sizes.max(0).tolist()}; its codes make {made.tolist()}"
        )
    if math.prod(made.tolist()) > MOST_PIXELS:
        raise ValueError(
            f"its images have {made.tolist()} pixels; expected at most {MOST_PIXELS:,}"
        )
