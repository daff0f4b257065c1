"""Images between bytes and [-1, 1], and originals over their reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np

# Pixels of a side; of a smaller image a person sees too little on a screen.
_VISIBLE = 128


def from_uint8(images: jax.Array) -> jax.Array:
    """Maps bytes to the range that the networks see.

    Args:
      images: u8[...].

    Returns:
      f32[...] in [-1, 1].
    """
    return images.astype(jnp.float32) / 127.5 - 1


def to_uint8(images: jax.Array) -> jax.Array:
    """Maps the networks' range back to bytes; the inverse of from_uint8.

    Args:
      images: f32[...], clipped to [-1, 1].

    Returns:
      u8[...].
    """
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def enlargement(height: int, width: int) -> int:
    """How many times an image is enlarged where a person is to look at it.

    Args:
      height: pixels.
      width: pixels.

    Returns:
      The smallest whole factor that brings the longer side to 128 pixels; 1 for a larger image.
    """
    return -(-_VISIBLE // min(max(height, width), _VISIBLE))


def enlarged(images: np.ndarray) -> np.ndarray:
    """Images for people to look at, each pixel a square of the `enlargement`'s side.

    Args:
      images: u8[..., H, W, 3].

    Returns:
      u8[..., f H, f W, 3], the images themselves where f is 1.
    """
    factor = enlargement(*images.shape[-3:-1])
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def comparison(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """One picture: the originals in a row, their reconstructions in the row below, enlarged.

    Args:
      originals: u8[N, H, W, 3].
      reconstructions: u8[N, H, W, 3].

    Returns:
      u8[2 f H + gap, N f W + gaps, 3] on white, f their enlargement.
    """
    gap = 2
    originals, reconstructions = enlarged(originals), enlarged(reconstructions)
    n, h, w, _ = originals.shape
    picture = np.full((2 * h + gap, n * (w + gap) - gap, 3), 255, np.uint8)
    for row, images in enumerate((originals, reconstructions)):
        for column, image in enumerate(images):
            top, left = row * (h + gap), column * (w + gap)
            picture[top : top + h, left : left + w] = image
    return picture
