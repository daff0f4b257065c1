"""What the auto-encoders of VQGAN and of MaskGIT do with their two halves."""

from collections.abc import Sequence

import jax
from flax import linen as nn


class Halves(nn.Module):
    """An encoder and a decoder; which, and their fields, an auto-encoder says.

    It has `encoder`; `decoder`, of the parts `features` and `pixels`; `multipliers`, `dim`
    and `unit_pixels`.
    """

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Both halves without a quantizer between them; initialisation runs it."""
        return self.decode(self.encode(images, train=train)[..., : self.dim], train=train)

    def encode(self, images: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, H, W, 3] in [-1, 1] -> z f32[B, h, w, D]."""
        require_sides(images.shape[1:3], self.downsampling)
        # Not folded into the first kernel: its padding is 0 in either range.
        return self.encoder((images + 1) / 2 if self.unit_pixels else images)

    def decode(self, z: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, h, w, D] -> f32[B, H, W, 3], nominally in [-1, 1], not clipped."""
        return self.pixels(self.features(z, train=train))

    def features(self, z: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, h, w, D] -> f32[B, H, W, C]: the decoder up to its last layer."""
        return self.decoder.features(z)

    def pixels(self, features: jax.Array) -> jax.Array:
        """f32[B, H, W, C] -> x_hat f32[B, H, W, 3]: the last layer, decoder/head, alone."""
        pixels = self.decoder.pixels(features)
        return 2 * pixels - 1 if self.unit_pixels else pixels

    @property
    def downsampling(self) -> int:
        """Pixels of the image, along one side, to one code."""
        return 2 ** (len(self.multipliers) - 1)


def require_sides(sides: Sequence[int], downsampling: int) -> None:
    """Raises unless images can be halved down to their codes.

    Args:
      sides: height and width, pixels.
      downsampling: of the auto-encoder.

    Raises:
      ValueError: a side is no multiple of it.
    """
    height, width = sides
    if height % downsampling or width % downsampling:
        raise ValueError(
            f"images are {height} x {width} pixels; expected multiples of the downsampling, "
            f"{downsampling}."
        )


def require_divided(channels: int, multipliers: Sequence[int], groups: int) -> None:
    """Raises unless GroupNorm divides all widths.

    Args:
      channels: as AutoEncoder's.
      multipliers: as AutoEncoder's.
      groups: as AutoEncoder's.

    Raises:
      ValueError: names the first width that it does not divide.
    """
    width = undivided_width(channels, multipliers, groups)
    if width is not None:
        raise ValueError(
            f"groups = {groups} does not divide a width of {width} channels; the "
            f"widths are channels = {channels} by multipliers = {multipliers}."
        )


def undivided_width(channels: int, multipliers: Sequence[int], groups: int) -> int | None:
    """The first width of an AutoEncoder that GroupNorm cannot divide.

    Args:
      channels: as AutoEncoder's.
      multipliers: as AutoEncoder's.
      groups: as AutoEncoder's.

    Returns:
      Channels; None where the groups divide every width.
    """
    widths = [channels * multiplier for multiplier in (1, *multipliers)]
    return next((width for width in widths if width % groups), None)
