"""Images on a canvas larger than themselves: encoded as if the canvas ended where each image does.

Beyond its edge, an image is zero to a convolution, no part of GroupNorm's statistics, and no
position that attention looks at.
"""

import contextlib

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.models.vqgan_blocks import Attention

# All else in an encoder takes each position for itself.
_LOOKING_AROUND = (nn.Conv, nn.GroupNorm, Attention)


def within(sizes: jax.Array, canvas: tuple[int, int]) -> contextlib.AbstractContextManager:
    """Makes the layers that are called inside see each image alone.

    Args:
      sizes: i32[B, 2], height and width of each image, multiples of the model's downsampling.
      canvas: (H, W) of the images at full resolution.

    Returns:
      A context; what lies beyond an image's edge in a result means nothing.
    """

    def inside(x):
        """Whether a position of f[B, h, w, C] lies in its image: bool[B, h, w, 1]."""
        rows, columns = (
            jnp.arange(side) < sizes[:, axis, None] * side // whole
            for axis, (side, whole) in enumerate(zip(x.shape[1:3], canvas, strict=True))
        )
        return rows[:, :, None, None] & columns[:, None, :, None]

    def seen(layer, arguments, named, context):
        if context.method_name != "__call__" or not isinstance(context.module, _LOOKING_AROUND):
            return layer(*arguments, **named)
        (x,) = arguments
        if isinstance(context.module, nn.Conv):
            return layer(jnp.where(inside(x), x, 0), **named)
        if isinstance(context.module, Attention):
            return layer(x, inside=inside(x))
        return layer(x, mask=jnp.broadcast_to(inside(x), x.shape))

    return nn.intercept_methods(seen)
