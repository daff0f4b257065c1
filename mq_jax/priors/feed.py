"""The batches of a prior's run on its devices."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.generation.space import TokenSpace
from mq_jax.tokensets.reading import TokenSet
from mq_jax.tokensets.stream import token_batches, token_stream


class TokenFeed:
    """Training batches, as training.stage.Batches has it; a token set has no bad images.

    Args:
      config: validated.
      tokens: of the training.
      space: theirs.
      mesh: from sharding.make_mesh.

    Attributes:
      listing: digest of the set.
      bad_images: none, of either level.
    """

    def __init__(self, config: ConfigDict, tokens: TokenSet, space: TokenSpace, mesh: Mesh):
        self._config, self._tokens, self._space, self._mesh = config, tokens, space, mesh
        self.listing, self.bad_images = tokens.digest, ([], [])

    def restore(self, bad_images: Sequence[Sequence[int]], listing: str) -> None:
        """Says where the set is another one than at the checkpoint."""
        if listing != self.listing and jax.process_index() == 0:
            logging.warning("The tokens are others than they were at the checkpoint.")

    def batches(self, step: int) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Batches from that of a step on.

        Args:
          step: number of the first.

        Returns:
          An endless generator of (tokens i32[B, n, J], labels i32[B]), with close().
        """
        # A stream of numbers of its own, apart from the key of the model.
        seed = int(np.random.SeedSequence((self._config.seed, 0)).generate_state(1)[0])
        stream = token_stream(
            self._tokens,
            batch_size=self._config.train.batch_size,
            seed=seed,
            start=step,
            view=self._config.train.view,
            **_reading(self._config),
        )
        try:
            for found in stream:
                yield sharding.shard_batch(self._mesh, rows(found, self._space))
        finally:
            stream.close()

    def count_bad_images(self) -> None:
        """Has nothing to count."""


def evaluation_pass(
    config: ConfigDict, tokens: TokenSet, space: TokenSpace, devices: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """One pass over a set, this process's rows of it, the first view of each image.

    Args:
      config: validated.
      tokens: of the validation.
      space: theirs.
      devices: over which a batch is split; eval.batch_size is rounded up to them.

    Yields:
      (tokens i32[b, n, J], labels i32[b], index i32[b], mask f32[b]).
    """
    size = -(-config.eval.batch_size // devices) * devices
    for found in token_batches(tokens, batch_size=size, **_reading(config)):
        yield *rows(found, space), found["index"].astype(np.int32), found["mask"]


def rows(found: dict[str, np.ndarray], space: TokenSpace) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a batch as a prior takes them.

    Args:
      found: tokens i32[b, h, w] or i32[b, h, w, J], label i32[b], -1 for none.
      space: theirs.

    Returns:
      (i32[b, n, J], i32[b] with `space.null` for none).
    """
    labels = found["label"]
    tokens = found["tokens"].reshape(len(labels), space.places, space.levels)
    known = (labels >= 0) & (space.classes > 0)
    return tokens, np.where(known, labels, space.null).astype(np.int32)


def _reading(config):
    """Which rows a process reads, and how."""
    return {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
        "threads": config.data.threads,
    }
