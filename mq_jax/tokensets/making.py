"""Making a token set, or what is missing of one, over all devices and processes of a run."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mq_jax.devices.agreement import together
from mq_jax.storage.joint_lock import held_together
from mq_jax.tokensets.manifest import begin, finish, read_manifest, require_claim
from mq_jax.tokensets.shards import ShardMaker, Spec


class Made(NamedTuple):
    """What a call of make_token_set did.

    Attributes:
      manifest: of the whole set.
      encoded: images that this process encoded.
      kept: images of this process's shards that were there already.
    """

    manifest: dict[str, Any]
    encoded: int
    kept: int


def make_token_set(
    spec: Spec,
    folder: str | os.PathLike,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], Callable[[int], Any]] | None = None,
) -> Made:
    """Makes a token set, or what is missing of it, over all devices and processes of the run.

    Args:
      spec: of the set.
      folder: of the set, made if absent; seen by all processes.
      overwrite: whether a token set of something else may be replaced.
      progress: told once how many images this process is to see to and how many of them are there
        already; what it returns is told the number of further ones that are done.

    Returns:
      A Made.

    Raises:
      FileNotFoundError: the tokenizer or the data is not there.
      ValueError: something does not fit, too many images are unreadable, or another process
        writes into the folder.
      OSError: the folder cannot be written.
    """
    folder, first = pathlib.Path(folder), jax.process_index() == 0
    with together():
        maker = ShardMaker(spec, folder)
        if first:
            folder.mkdir(parents=True, exist_ok=True)
    with held_together(folder, "give another --output"):
        with together():
            if first:
                begin(folder, maker.claim, overwrite=overwrite)
        with together():
            # Of another process's own data, or into another folder.
            require_claim(folder, maker.claim)
        with together():
            own = range(jax.process_index(), maker.shards, jax.process_count())
            encoded, kept = _make(maker, own, progress)
        with together():
            if first:
                finish(folder, maker.most_bad)
        return Made(read_manifest(folder), encoded, kept)


def _make(maker, shards, progress):
    """(images encoded, images that were there) of some shards."""
    there = {shard: found["images"] for shard in shards if (found := maker.found(shard))}
    missing = [shard for shard in shards if shard not in there]
    kept = sum(there.values())
    advance = progress and progress(kept + sum(map(maker.records, missing)), kept)
    return sum(maker.make(shard, advance) for shard in missing), kept
