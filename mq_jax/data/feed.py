"""The batches of a run on its devices, and the account of the images that cannot be read."""

from collections.abc import Iterator, Sequence

import jax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.algorithm.state import Parts
from mq_jax.data import inputs
from mq_jax.data.ledger import SEEN_TWICE, BadImages
from mq_jax.data.pipeline import shuffling_cost
from mq_jax.devices import sharding


class Feed:
    """Batches of both levels, each from the step that is asked for.

    Args:
      config: validated.
      sources: from inputs.open_training.
      mesh: from sharding.make_mesh.

    Attributes:
      listing: digest of the contents that the record numbers belong to.
    """

    def __init__(self, config: ConfigDict, sources: Parts, mesh: Mesh):
        self._config, self._sources, self._mesh = config, sources, mesh
        share = config.data.max_bad_share
        inner = BadImages(sources.autoencoder, share, SEEN_TWICE)
        # Levels that share their images share the account of the bad ones.
        shared = sources.codebook is sources.autoencoder
        outer = inner if shared else BadImages(sources.codebook, share, SEEN_TWICE)
        self._ledgers = (inner, outer)
        self._skipped = ([], [])  # by level, since the ledgers were last told
        # Record numbers mean something in this listing alone.
        self.listing = sources.autoencoder.contents().digest
        cost = shuffling_cost(min(len(sources.autoencoder), len(sources.codebook)))
        if cost and jax.process_index() == 0:
            logging.info("%s", cost)

    @property
    def bad_images(self) -> tuple[list[int], list[int]]:
        """Record numbers of the unreadable images so far, by level; fit for JSON."""
        return tuple(ledger.indices for ledger in self._ledgers)

    def restore(self, bad_images: Sequence[Sequence[int]], listing: str) -> None:
        """Takes the account over from a checkpoint, unless the data has changed since.

        Args:
          bad_images: as the attribute.
          listing: of the data then; "": not known.
        """
        if listing not in ("", self.listing):
            if jax.process_index() == 0:
                logging.warning(
                    "The inner level draws from other images than it did at the checkpoint; the "
                    "account of unreadable ones starts anew."
                )
            return
        for ledger, indices in zip(self._ledgers, bad_images, strict=True):
            ledger.restore(indices)

    def outer_due(self, step: int) -> bool:
        """Whether the step of this number, from 0, also updates the codebook, or begins to."""
        train = self._config.train
        return step % train.inner_updates == train.inner_updates - train.unroll

    def updates(self, step: int) -> int:
        """Inner updates that the step of this number, from 0, takes as one."""
        return self._config.train.unroll if self.outer_due(step) else 1

    def batches(self, step: int) -> Iterator[tuple[jax.Array | tuple, jax.Array]]:
        """Pairs of an inner and an outer batch on the devices.

        Where a step takes several inner updates as one, it has a tuple of inner batches.

        Args:
          step: of the first pair.

        Returns:
          An endless generator of u8[B, H, W, 3] pairs, with close().

        Raises:
          ValueError: too many images are unreadable.
        """
        starts = (step, step // self._config.train.inner_updates)
        levels = 2 if inputs.reads_outer(self._config) else 1
        streams = [
            inputs.stream(self._config, self._sources[level], level=level, start=starts[level])
            for level in range(levels)
        ]

        def take(level):
            batch = next(streams[level])
            self._skipped[level].append(batch["skipped"])
            if jax.process_count() == 1:
                self.count_bad_images()
            return sharding.shard_batch(self._mesh, batch["image"])

        try:
            while True:
                count = self.updates(step)
                inner = [take(0) for _ in range(count)]
                # The last for both where they share it, and where the step reads no outer one.
                outer = take(1) if levels == 2 and self.outer_due(step) else inner[-1]
                yield tuple(inner) if count > 1 else inner[0], outer
                step += count
        finally:
            for stream in streams:
                stream.close()

    def count_bad_images(self) -> None:
        """Tells the ledgers; in several processes with each report, as the others must answer.

        Raises:
          ValueError: too many images are unreadable.
        """
        for ledger, skipped in zip(self._ledgers, self._skipped, strict=True):
            ledger.record_of_all(skipped)
            skipped.clear()
