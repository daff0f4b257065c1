"""A trained model as a tokenizer: images to codes and back, for whoever uses it."""

from __future__ import annotations

import os
import warnings
from typing import Any

import jax
import numpy as np

from mq_jax.tokenizers.coding import Coding, Weights
from mq_jax.tokenizers.export import Export, coding_of, downsampling
from mq_jax.tokenizers.export_reading import read_export

# Images of one program call; fewer are padded to a power of two.
LARGEST_BATCH = 64

# How far a float image may lie outside [-1, 1]: what resizing and rounding leave.
_SLACK = 1e-3


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
      size: K, codewords.
      dim: D.
      downsampling: pixels to a code, along one side.
      image_size: side of the images it was trained on, pixels.
      preparation: how these images were made, as Export.preparation.
      fingerprint: sha256 of architecture and weights; tokens of equal fingerprints mean the same.
    """

    def __init__(self, export: Export):
        self.size, self.dim = export.weights.codebook.shape
        self.downsampling = downsampling(export)
        self.image_size = export.architecture["data"]["image_size"]
        self.preparation = dict(export.preparation)
        self.fingerprint = export.fingerprint
        # An argument of the programs: as constants the weights would be compiled into each.
        self._weights = jax.device_put(export.weights)
        self._coding = Coding(*map(jax.jit, coding_of(export)))
        self._architecture = export.architecture

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
    def coding(self) -> Coding:
        """The jitted functions of weights and arrays, for a program of one's own."""
        return self._coding

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The codes of images.

        Args:
          images: u8[B, H, W, 3], or floats of any width [B, H, W, 3] in [-1, 1], of which those
            that look like [0, 1] are warned of; sides that the downsampling does not divide are
            padded at the right and at the bottom by repeating the edge.

        Returns:
          i32[B, ceil(H / downsampling), ceil(W / downsampling)] in [0, K).

        Raises:
          ValueError: images of another shape, dtype or range.
        """
        images = _checked_images(images)
        images = self.padded(images)
        codes = [side // self.downsampling for side in images.shape[1:3]]
        return self._in_batches(self._coding.encode, np.zeros((0, *codes), np.int32), images)

    def encode_within(self, images: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The codes of images of several sizes at once.

        Args:
          images: u8[B, H, W, 3], each at the top left, edges repeated as by `padded`; H and W are
            multiples of the downsampling.
          sizes: i[B, 2], height and width of each with those edges.

        Returns:
          i32[B, h, w]; each image has the codes that `encode` gives it, the rest means nothing.

        Raises:
          ValueError: as encode.
        """
        images, sizes = _checked_images(images), np.asarray(sizes, np.int32)
        if any(side % self.downsampling for side in (*images.shape[1:3], *sizes.ravel())):
            raise ValueError(
                f"images have sides {images.shape[1:3]}, sizes {sizes.tolist()}; expected "
                f"multiples of {self.downsampling}."
            )
        codes = [side // self.downsampling for side in images.shape[1:3]]
        nothing = np.zeros((0, *codes), np.int32)
        return self._in_batches(self._coding.encode_within, nothing, images, sizes)

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
          indices: i[B, h, w] in [0, K).
          size: (H, W), to crop padding away; None: all that the codes make.

        Returns:
          u8[B, H, W, 3].

        Raises:
          ValueError: indices of another shape, dtype or range, or a size that they do not make.
        """
        indices = _checked_indices(indices, self.size)
        made = tuple(side * self.downsampling for side in indices.shape[1:])
        height, width = made if size is None else _checked_size(size)
        if not (0 < height <= made[0] and 0 < width <= made[1]):
            raise ValueError(
                f"size is {(height, width)}; expected at least 1 pixel and at most {made}, which "
                f"codes of {indices.shape[1:]} make."
            )
        nothing = np.zeros((0, *made, 3), np.uint8)
        return self._in_batches(self._coding.decode, nothing, indices)[:, :height, :width]

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

    def _in_batches(self, function, nothing, *arrays):
        """The function of all rows, by batches whose sizes are powers of two."""
        results = []
        for start in range(0, len(arrays[0]), LARGEST_BATCH):
            count = min(len(arrays[0]) - start, LARGEST_BATCH)
            padding = (1 << (count - 1).bit_length()) - count
            padded = [
                np.pad(rows[start : start + count], [(0, padding)] + [(0, 0)] * (rows.ndim - 1))
                for rows in arrays
            ]
            # Computed while the next batch is prepared.
            results.append((function(self._weights, *padded), count))
        return np.concatenate([nothing, *[np.asarray(out)[:n] for out, n in results]])


def _checked_images(images):
    """u8 or f32[B, H, W, 3]."""
    images = np.asarray(images)
    # NumPy's own issubdtype does not know bfloat16.
    floating = jax.dtypes.issubdtype(images.dtype, np.floating)
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise ValueError(f"images have the shape {images.shape}; expected [B, H, W, 3].")
    if images.dtype != np.uint8 and not floating:
        raise ValueError(f"images are {images.dtype}; expected uint8, or floats in [-1, 1].")
    if floating and images.size and not np.abs(images).max() <= 1 + _SLACK:
        raise ValueError(
            f"images lie in [{images.min():g}, {images.max():g}]; expected floats in [-1, 1] "
            "(x / 127.5 - 1 of bytes), or uint8."
        )
    if floating and images.size and images.min() >= 0 and images.max() > images.min():
        warnings.warn(
            f"images lie in [{images.min():g}, {images.max():g}], which looks like [0, 1]; floats "
            "are taken to be in [-1, 1]: give 2 x - 1, or uint8.",
            stacklevel=4,
        )
    return images.astype(np.float32, copy=False) if floating else images


def _checked_size(size):
    """(H, W), whole numbers."""
    try:
        height, width = size
    except (TypeError, ValueError):
        height = width = None
    if not all(isinstance(side, int | np.integer) for side in (height, width)):
        raise ValueError(f"size is {size!r}; expected two whole numbers, (height, width).")
    return height, width


def _checked_indices(indices, size):
    """i32[B, h, w] in [0, K)."""
    indices = np.asarray(indices)
    if indices.ndim != 3 or 0 in indices.shape[1:]:
        raise ValueError(f"indices have the shape {indices.shape}; expected [B, h, w].")
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"indices are {indices.dtype}; expected integers.")
    if indices.size and not (0 <= indices.min() and indices.max() < size):
        raise ValueError(
            f"indices lie in [{indices.min()}, {indices.max()}]; expected [0, {size - 1}], the "
            "codes of this tokenizer."
        )
    return indices.astype(np.int32, copy=False)
