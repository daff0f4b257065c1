"""The bilinear resize of TensorFlow 1, with which the published Inception graph sees images."""

import jax
import jax.numpy as jnp
import numpy as np


def resize_as_tensorflow_1(images: jax.Array, side: int) -> jax.Array:
    """Resizes bilinearly without half-pixel centres and without antialiasing.

    Pixel i of the result lies at i * H / side of the image, and past the last row or column the
    last one counts: `ResizeBilinear` with align_corners and half_pixel_centers false. It shifts an
    image by up to half a pixel against inception_features, which resizes by half-pixel centres.

    Args:
      images: f32[B, H, W, C].
      side: of the result, pixels.

    Returns:
      f32[B, side, side, C].
    """
    for axis in (2, 1):
        low, high, share = _places(images.shape[axis], side)
        share = jnp.expand_dims(share, tuple(a for a in range(4) if a != axis))
        near, far = (jnp.take(images, at, axis=axis) for at in (low, high))
        images = near + (far - near) * share
    return images


def _places(size, side):
    """The two source pixels of each pixel, and the share of the second."""
    place = np.arange(side, dtype=np.float32) * (np.float32(size) / np.float32(side))
    low = np.floor(place).astype(np.int32)
    return low, np.minimum(low + 1, size - 1), place - low.astype(np.float32)
