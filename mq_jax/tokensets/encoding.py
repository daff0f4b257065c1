"""Encoding on all devices of a process, each of which computes whole batches of one size.

So a device always runs the same program on the same rows, and the codes do not depend on how many
devices there are: another batch size would add in another order, which can tip a code.
"""

from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mq_jax.tokenizers.tokenizer import LARGEST_BATCH, Tokenizer

# Rows of one device.
BATCH = LARGEST_BATCH


class Encoder:
    """Encodes streams of images of one size.

    Args:
      tokenizer: whose codes they are.
      devices: that compute; None: all of this process.

    Attributes:
      rows: images that all devices take at once.
    """

    def __init__(self, tokenizer: Tokenizer, devices: Sequence[jax.Device] | None = None):
        devices = jax.local_devices() if devices is None else devices
        mesh = Mesh(np.array(devices), ("device",))
        self.rows = BATCH * len(devices)
        self._padded = tokenizer.padded
        self._split = NamedSharding(mesh, PartitionSpec("device"))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._weights = jax.device_put(tokenizer.weights, everywhere)
        self._encode = jax.jit(
            jax.shard_map(
                tokenizer.coding.encode,
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec("device")),
                out_specs=PartitionSpec("device"),
                # The lookup's loop starts from constants, which are the same everywhere.
                check_vma=False,
            )
        )

    def codes(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The codes of images, in their order.

        Args:
          images: u8[V, S, S, 3] each, all of one shape.

        Yields:
          i32[V, h, w] or i32[V, h, w, J] for each of them.
        """
        views, left = 0, []
        for rows, views in self._computed(images):
            left.append(rows)
            if sum(map(len, left)) >= views:
                joined = np.concatenate(left)
                whole = len(joined) - len(joined) % views
                yield from np.split(joined[:whole], whole // views)
                left = [joined[whole:]]

    def _computed(self, images):
        """(codes of a batch, views of an image); the batch after it is computed meanwhile."""
        sent = None
        for rows, count, views in self._batches(images):
            on_devices = jax.device_put(self._padded(rows), self._split)
            computed = self._encode(self._weights, on_devices), count, views
            if sent is not None:
                yield np.asarray(sent[0])[: sent[1]], sent[2]
            sent = computed
        if sent is not None:
            yield np.asarray(sent[0])[: sent[1]], sent[2]

    def _batches(self, images):
        """(u8[rows, S, S, 3], how many of them count, views of an image)."""
        batch, filled = None, 0
        for image in images:
            start = 0
            while start < len(image):
                if batch is None:
                    # A new one: JAX may still read the one before.
                    batch, filled = np.zeros((self.rows, *image.shape[1:]), image.dtype), 0
                taken = min(len(image) - start, self.rows - filled)
                batch[filled : filled + taken] = image[start : start + taken]
                start, filled = start + taken, filled + taken
                if filled == self.rows:
                    yield batch, filled, len(image)
                    batch = None
        if batch is not None:
            yield batch, filled, len(image)
