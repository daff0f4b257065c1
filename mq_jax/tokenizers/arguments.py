"""What a tokenizer is given, checked before it computes: images, sizes, codes."""

import math
import warnings
from typing import Any

import jax
import numpy as np

# How far a float image may lie outside [-1, 1]: what resizing and rounding leave.
_SLACK = 1e-3


def checked_images(images: Any) -> np.ndarray:
    """Images that can be encoded.

    Args:
      images: as Tokenizer.encode takes them.

    Returns:
      u8 or f32[B, H, W, 3].

    Raises:
      ValueError: images of another shape, dtype or range.
    """
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


def checked_size(size: Any) -> tuple[int, int]:
    """The sides of an image.

    Args:
      size: (H, W).

    Returns:
      Both.

    Raises:
      ValueError: anything but two whole numbers.
    """
    try:
        height, width = size
    except (TypeError, ValueError):
        height = width = None
    if not all(isinstance(side, int | np.integer) for side in (height, width)):
        raise ValueError(f"size is {size!r}; expected two whole numbers, (height, width).")
    return height, width


def checked_indices(indices: Any, size: int, depth: int) -> np.ndarray:
    """Codes that can be decoded.

    Args:
      indices: as Tokenizer.decode takes them.
      size: K.
      depth: J; 0 where codes have no axis of their own.

    Returns:
      i32[B, h, w] or i32[B, h, w, J], in [0, K).

    Raises:
      ValueError: indices of another shape, dtype or range.
    """
    indices = np.asarray(indices)
    own = (depth,) if depth else ()
    if indices.ndim == 2 + len(own) and indices.shape[2:] == own:
        indices = _as_squares(indices)
    if indices.ndim != 3 + len(own) or indices.shape[3:] != own or 0 in indices.shape[1:]:
        expected = f"[B, h, w, {depth}], {depth} codes a position" if own else "[B, h, w]"
        raise ValueError(f"indices have the shape {indices.shape}; expected {expected}.")
    if not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"indices are {indices.dtype}; expected integers.")
    if indices.size and not (0 <= indices.min() and indices.max() < size):
        raise ValueError(
            f"indices lie in [{indices.min()}, {indices.max()}]; expected [0, {size - 1}], the "
            "codes of this tokenizer."
        )
    return indices.astype(np.int32, copy=False)


def _as_squares(indices):
    """[B, N, ...] as [B, h, h, ...], where there is such an h."""
    count, codes, *own = indices.shape
    side = math.isqrt(codes)
    if not codes or side**2 != codes:
        expected = f"[B, h, w, {own[0]}]" if own else "[B, h, w]"
        raise ValueError(
            f"indices have the shape {indices.shape}, and {codes} codes make no square; give "
            f"{expected}, as encode returns them."
        )
    return indices.reshape(count, side, side, *own)
