"""A trained model as a tokenizer: images to codes and back, for whoever uses it."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from mq_jax.tokenizers.architecture import quantizer_in_words, quantizer_of
from mq_jax.tokenizers.arguments import checked_images, checked_indices, checked_size
from mq_jax.tokenizers.coding import Coding, Weights
from mq_jax.tokenizers.export import Export, coding_of, downsampling
from mq_jax.tokenizers.export_reading import read_export

# Images of one program call; fewer are padded to a power of two.
LARGEST_BATCH = 64


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads an exported model; runs no code of the files.

    Args:
      path: an export folder, the folder of a run that has one, or one format of it: the
        safetensors file or the Orbax folder.

    Returns:
      A Tokenizer.

    Raises:
      FileNotFoundError: there is no export; says how to make one.
      ValueError: it is damaged, truncated or of an unknown version.
    """
    return Tokenizer(read_export(path))


class Tokenizer:
    """Images to indices and indices to images.

    For each size of images, batches of any number of them compile at most seven programs a
    direction. Programs of other batch sizes add in another order: pixels may differ by one level.

    Args:
      export: as read_export returns it.

    Attributes:
      size: K, values of a code.
      depth: J, codes of a position, on a last axis of indices; 0 where they have none, one each.
      dim: D, channels of what a position's codes decode to.
      downsampling: pixels to a code, along one side.
      image_size: side of the images it was trained on, pixels.
      preparation: how these images were made, as Export.preparation.
      fingerprint: sha256 of architecture and weights; tokens of equal fingerprints mean the same.
    """

    def __init__(self, export: Export):
        self._quantizer = quantizer_of(export.architecture)
        self.size, self.depth = self._quantizer.size, self._quantizer.depth
        self.dim = self._quantizer.dim
        self.downsampling = downsampling(export)
        self.image_size = export.architecture["data"]["image_size"]
        self.preparation = dict(export.preparation)
        self.fingerprint = export.fingerprint
        # An argument of the programs: as constants the weights would be compiled into each.
        self._weights = jax.device_put(export.weights)
        self._coding = Coding(*map(jax.jit, coding_of(export)))
        self._architecture = export.architecture

    def __repr__(self) -> str:
        trained = jax.tree.leaves((self._weights.theta, self._weights.codebook))
        parameters = sum(leaf.size for leaf in trained)
        return (
            f"Tokenizer({quantizer_in_words(self._architecture)}, K={self.size}, "
            f"{f'J={self.depth}, ' if self.depth else ''}D={self.dim}, "
            f"downsampling={self.downsampling}, "
            f"image_size={self.image_size}, parameters={parameters}, "
            f"fingerprint={self.fingerprint[:16]}...)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """As its export: programs and arrays of a device cannot go to another process."""
        weights = jax.tree.map(np.asarray, self._weights)
        export = Export(self._architecture, self.preparation, weights, self.fingerprint)
        return Tokenizer, (export,)

    @property
    def weights(self) -> Weights:
        """The arrays, on the device."""
        return self._weights

    @property
    def codebook(self) -> np.ndarray:
        """What each code stands for, on the host, a copy of one's own: f32[codes, d].

        K codewords of D channels; of residual levels those of each, one after the other, and of
        groups likewise, with the channels of a group. Where codes are arithmetic they are computed.
        """
        return np.array(self._quantizer.codewords(self._weights.codebook))

    @property
    def coding(self) -> Coding:
        """The jitted functions of weights and arrays, for a program of one's own."""
        return self._coding

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """How many codes an image has.

        Args:
          height: of the image, pixels.
          width: likewise.

        Returns:
          (h, w).

        Raises:
          ValueError: a side that is no positive whole number.
        """
        sides = checked_size((height, width))
        if min(sides) < 1:
            raise ValueError(f"the image is of {sides} pixels; expected at least 1 x 1.")
        return tuple(-(-side // self.downsampling) for side in sides)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The codes of images.

        Args:
          images: u8[B, H, W, 3], or floats of any width [B, H, W, 3] in [-1, 1], of which those
            that look like [0, 1] are warned of; sides that the downsampling does not divide are
            padded at the right and at the bottom by repeating the edge.

        Returns:
          i32[B, ceil(H / downsampling), ceil(W / downsampling)] in [0, K); with J, i32[..., J].

        Raises:
          ValueError: images of another shape, dtype or range.
        """
        images = checked_images(images)
        codes = self._codes(images)
        return self._in_batches(self._coding.encode, codes, np.int32, self.padded(images))

    def encode_within(self, images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The codes of images of several sizes at once.

        Args:
          images: u8[B, H, W, 3], each at the top left, edges repeated as by `padded`; H and W are
            multiples of the downsampling.
          sizes: i[B, 2], height and width of each with those edges.

        Returns:
          i32[B, h, w] or i32[B, h, w, J]; each image has the codes that `encode` gives it, the
          rest means nothing.

        Raises:
          ValueError: as encode.
        """
        images, sizes = checked_images(images), np.asarray(sizes, np.int32)
        if any(side % self.downsampling for side in (*images.shape[1:3], *sizes.ravel())):
            raise ValueError(
                f"images have sides {images.shape[1:3]}, sizes {sizes.tolist()}; expected "
                f"multiples of {self.downsampling}."
            )
        codes = self._codes(images)
        return self._in_batches(self._coding.encode_within, codes, np.int32, images, sizes)

    def padded(self, images: np.ndarray) -> np.ndarray:
        """Images whose sides are multiples of the downsampling; of equal codes.

        Args:
          images: [..., H, W, 3].

        Returns:
          The edge repeated at the right and at the bottom alone, so that a crop takes it off.
        """
        missing = [(0, -side % self.downsampling) for side in images.shape[-3:-1]]
        # NumPy repeats no edge of no images.
        mode = "edge" if images.size else "constant"
        return np.pad(images, [(0, 0)] * (images.ndim - 3) + [*missing, (0, 0)], mode=mode)

    def decode(self, indices: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """The images of codes.

        Args:
          indices: i[B, h, w] in [0, K), with J i[B, h, w, J]; or [B, N] and [B, N, J], where N
            positions make a square.
          size: (H, W), to crop padding away; None: all that the codes make.

        Returns:
          u8[B, H, W, 3].

        Raises:
          ValueError: indices of another shape, dtype or range, or a size that they do not make.
        """
        indices = checked_indices(indices, self.size, self.depth)
        made = tuple(side * self.downsampling for side in indices.shape[1:3])
        height, width = made if size is None else checked_size(size)
        if not (0 < height <= made[0] and 0 < width <= made[1]):
            raise ValueError(
                f"size is {(height, width)}; expected at least 1 pixel and at most {made}, which "
                f"codes of {indices.shape[1:3]} make."
            )
        images = self._in_batches(self._coding.decode, (*made, 3), np.uint8, indices)
        return images[:, :height, :width]

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """decode(encode(images)), of the images' own size.

        Args:
          images: as encode's.

        Returns:
          u8[B, H, W, 3].

        Raises:
          ValueError: as encode.
        """
        images = np.asarray(images)
        return self.decode(self.encode(images), images.shape[1:3])

    def _codes(self, images):
        """The shape of an image's codes."""
        grid = self.grid(*images.shape[1:3])
        return (*grid, self.depth) if self.depth else grid

    def _in_batches(self, function, shape, dtype, *arrays):
        """The function of all rows, by batches whose sizes are powers of two; a row has a shape."""
        total = len(arrays[0])
        results = np.empty((total, *shape), dtype)

        def bring_home(start, computed):
            rows = results[start : start + LARGEST_BATCH]
            rows[:] = np.asarray(computed)[: len(rows)]

        sent = None
        for start in range(0, total, LARGEST_BATCH):
            count = min(total - start, LARGEST_BATCH)
            padding = (1 << (count - 1).bit_length()) - count
            padded = [
                np.pad(rows[start : start + count], [(0, padding)] + [(0, 0)] * (rows.ndim - 1))
                for rows in arrays
            ]
            # Computed while the one before comes home: the device never holds more than two.
            computed = function(self._weights, *padded)
            if sent is not None:
                bring_home(*sent)
            sent = start, computed
        if sent is not None:
            bring_home(*sent)
        return results
