"""What tells one set of images from another: a digest of their pixels, in any order of batches."""

import hashlib

import numpy as np

from mq_jax.devices.agreement import gather

_BYTES = 16


class PixelDigest:
    """The sum of the images' hashes, modulo 2^128; the number of an image is part of its hash.

    A sum, since batches and processes cut the set in different ways.
    """

    def __init__(self):
        self._sum, self._images = 0, 0

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Adds this process's rows of a batch, those that count.

        Args:
          batch: as data.pipeline.eval_batches yields it.
        """
        rows = zip(batch["index"], batch["image"], batch["mask"], strict=True)
        for index, image, mask in rows:
            if mask > 0:
                # Shapes too: 2 x 8 pixels are not 4 x 4.
                head = f"{int(index)} {image.shape} {image.dtype.str} ".encode()
                hashed = hashlib.blake2b(head + image.tobytes(), digest_size=_BYTES)
                self._sum = (self._sum + int.from_bytes(hashed.digest(), "big")) % 2 ** (8 * _BYTES)
                self._images += 1

    def of_all(self) -> tuple[str, int]:
        """The digest of the rows of all processes, and their number; a call of all of them."""
        own = self._sum.to_bytes(_BYTES, "big") + self._images.to_bytes(8, "big")
        total, images = 0, 0
        for row in gather(np.frombuffer(own, np.uint8)[None]):
            total += int.from_bytes(row[0, :_BYTES].tobytes(), "big")
            images += int.from_bytes(row[0, _BYTES:].tobytes(), "big")
        return (total % 2 ** (8 * _BYTES)).to_bytes(_BYTES, "big").hex(), images
