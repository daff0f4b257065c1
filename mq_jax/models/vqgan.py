"""The auto-encoder of VQGAN (Esser et al., 2021), in the shapes of Rombach et al. (2022).

The last layer of either half computes in full float32 whatever the others do and on any device: z
goes into distances, and a bfloat16 pixel would be as coarse as one step of 8 bits.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from mq_jax.models.halves import Halves, require_divided
from mq_jax.models.vqgan_blocks import (
    Layers,
    NearestUpsample,
    Stack,
    level_blocks,
    middle_blocks,
    wide,
)


class Encoder(nn.Module):
    """Levels of residual blocks, strided convolutions between them; then D channels.

    Attributes: as the auto-encoder's.
    """

    channels: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]
    middle_attention: bool
    dim: int
    z_channels: int
    layer_norm: bool
    layers: Layers

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """f32[B, H, W, 3] in [-1, 1] -> f32[B, h, w, D]."""
        layers = self.layers
        x = layers.convolution(self.channels, 3, images.shape[-1])(images)
        for level, multiplier in enumerate(self.multipliers):
            if level > 0:
                width = x.shape[-1]
                # Padded at the right and at the bottom alone.
                padding = ((0, 1), (0, 1))
                x = layers.convolution(width, 3, width, strides=2, padding=padding)(x)
            kinds = level_blocks(self.blocks, level in self.attention)
            x = Stack(kinds, self.channels * multiplier, layers, name=f"level_{level}")(x)
        x = Stack(middle_blocks(self.middle_attention), x.shape[-1], layers, name="middle")(x)
        x = nn.swish(layers.norm()(x))
        x = layers.convolution(self.z_channels, 3, x.shape[-1])(x)
        z = layers.wide_convolution(self.dim, 1, self.z_channels)(x)
        return nn.LayerNorm(epsilon=1e-5)(z) if self.layer_norm else z


class Decoder(nn.Module):
    """The encoder's mirror, with one residual block more a level.

    Attributes: as the auto-encoder's.
    """

    channels: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]
    middle_attention: bool
    z_channels: int
    layers: Layers

    def setup(self):
        width = self.channels * self.multipliers[0]
        self.head = self.layers.wide_convolution(3, 3, width)

    @nn.compact
    def features(self, z: jax.Array) -> jax.Array:
        """f32[B, h, w, D] -> f32[B, H, W, C], the input of the last layer."""
        layers = self.layers
        x = layers.convolution(self.z_channels, 1, z.shape[-1])(z)
        x = layers.convolution(self.channels * self.multipliers[-1], 3, self.z_channels)(x)
        x = Stack(middle_blocks(self.middle_attention), x.shape[-1], layers, name="middle")(x)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            kinds = level_blocks(self.blocks + 1, level in self.attention)
            x = Stack(kinds, self.channels * multiplier, layers, name=f"level_{level}")(x)
            if level > 0:
                x = NearestUpsample(layers)(x)
        return nn.swish(layers.norm()(x)).astype(wide(layers.dtype))

    def pixels(self, features: jax.Array) -> jax.Array:
        """f32[B, H, W, C] -> f32[B, H, W, 3]."""
        return self.head(features)


class AutoEncoder(Halves):
    """An encoder and a decoder under one parameter tree, theta. No BatchNorm: `train` is unused.

    Attributes:
      channels: width at full resolution, before the first multiplier.
      multipliers: of the width, one a level, full resolution first; each level but the last
        halves the height and the width. VQ-f16: (1, 1, 2, 2, 4); VQ-f8: (1, 2, 2, 4).
      blocks: residual blocks a level in the encoder; the decoder has one more.
      attention: levels whose residual blocks are each followed by attention, 0 at full resolution.
      dim: D.
      z_channels: width between the 3x3 convolution and the 1x1 convolution to D, on either side.
      groups: of GroupNorm.
      layer_norm: whether z is normalised over its channels.
      init_std: standard deviation of the kernels at initialisation, with biases at zero; 0:
        PyTorch's default, kernels and biases uniform in +-1/sqrt(fan_in).
      dtype: of convolutions and attention's projections: float32, bfloat16, or float64 in tests.
      remat: whether the backward pass computes each block anew rather than keep its inside. On
        XLA's CPU backend that costs time and saves nothing: it drops remat's barriers.
      log_variances: whether the encoder gives D further channels, behind those of z.
      middle_attention: whether attention is between the two residual blocks at the lowest
        resolution; the nets of aMUSEd have none there.
      unit_pixels: whether the layers see, and make, pixels in [0, 1]; the module's are in [-1, 1].

    Raises:
      ValueError: on use, if the groups do not divide a width, a level of `attention` does not
        exist, or the sides of images are no multiples of the downsampling.
    """

    channels: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]
    dim: int
    z_channels: int
    groups: int
    layer_norm: bool
    init_std: float
    dtype: Any
    remat: bool
    log_variances: bool = False
    middle_attention: bool = True
    unit_pixels: bool = False

    def setup(self):
        self._check()
        layers = Layers(self.groups, self.init_std, self.dtype, self.remat)
        levels = (self.channels, self.multipliers, self.blocks, self.attention)
        levels += (self.middle_attention,)
        width = self.dim * (2 if self.log_variances else 1)
        self.encoder = Encoder(*levels, width, self.z_channels, self.layer_norm, layers)
        self.decoder = Decoder(*levels, self.z_channels, layers)

    def _check(self):
        require_divided(self.channels, self.multipliers, self.groups)
        unknown = [level for level in self.attention if level not in range(len(self.multipliers))]
        if unknown:
            raise ValueError(
                f"attention is at levels {tuple(self.attention)}; expected levels from 0 to "
                f"{len(self.multipliers) - 1}, one for each of multipliers = {self.multipliers}."
            )
