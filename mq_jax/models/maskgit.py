"""The auto-encoder of MaskGIT's tokenizer (Chang et al., 2022): VQGAN's without attention, pooled.

As vqgan.py has it: the last layer of either half computes in full float32.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from mq_jax.models.halves import Halves, require_divided
from mq_jax.models.vqgan_blocks import Layers, NearestUpsample, Stack, wide


class MaskGITBlock(nn.Module):
    """y + W y where widths differ and x + y where not, y = conv(swish(GN(conv(swish(GN(x)))))).

    No convolution has a bias. That the 1x1 convolution W is of y, not of x, is as its published
    weights were trained.
    """

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f[B, h, w, C] -> f[B, h, w, features]."""
        y = x
        for _ in range(2):
            y = nn.swish(self.layers.norm()(y))
            y = self.layers.convolution(self.features, 3, y.shape[-1], use_bias=False)(y)
        if x.shape[-1] == self.features:
            return x + y
        settings = {"use_bias": False, "name": "shortcut"}
        return y + self.layers.convolution(self.features, 1, self.features, **settings)(y)


class Encoder(nn.Module):
    """Levels of residual blocks, the mean of 2x2 pixels between them; then D channels.

    Attributes: as the auto-encoder's.
    """

    channels: int
    multipliers: Sequence[int]
    blocks: int
    dim: int
    layer_norm: bool
    layers: Layers

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """f32[B, H, W, 3] -> f32[B, h, w, D]."""
        layers, kinds = self.layers, (MaskGITBlock,) * self.blocks
        x = layers.convolution(self.channels, 3, images.shape[-1], use_bias=False)(images)
        for level, multiplier in enumerate(self.multipliers):
            if level > 0:
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            x = Stack(kinds, self.channels * multiplier, layers, name=f"level_{level}")(x)
        x = Stack(kinds, x.shape[-1], layers, name="middle")(x)
        x = nn.swish(layers.norm()(x))
        z = layers.wide_convolution(self.dim, 1, x.shape[-1])(x)
        return nn.LayerNorm(epsilon=1e-5)(z) if self.layer_norm else z


class Decoder(nn.Module):
    """The encoder's mirror.

    Attributes: as the auto-encoder's.
    """

    channels: int
    multipliers: Sequence[int]
    blocks: int
    layers: Layers

    def setup(self):
        width = self.channels * self.multipliers[0]
        self.head = self.layers.wide_convolution(3, 3, width)

    @nn.compact
    def features(self, z: jax.Array) -> jax.Array:
        """f32[B, h, w, D] -> f32[B, H, W, C], the input of the last layer."""
        layers, kinds = self.layers, (MaskGITBlock,) * self.blocks
        x = layers.convolution(self.channels * self.multipliers[-1], 3, z.shape[-1])(z)
        x = Stack(kinds, x.shape[-1], layers, name="middle")(x)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
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
      blocks: residual blocks a level, and at the lowest resolution, in either half.
      channels, multipliers, dim, groups, layer_norm, init_std, dtype, remat, log_variances,
        unit_pixels: as vqgan.AutoEncoder's.

    Raises:
      ValueError: as vqgan.AutoEncoder's.
    """

    channels: int
    multipliers: Sequence[int]
    blocks: int
    dim: int
    groups: int
    layer_norm: bool
    init_std: float
    dtype: Any
    remat: bool
    log_variances: bool = False
    unit_pixels: bool = False

    def setup(self):
        require_divided(self.channels, self.multipliers, self.groups)
        layers = Layers(self.groups, self.init_std, self.dtype, self.remat)
        levels = (self.channels, self.multipliers, self.blocks)
        width = self.dim * (2 if self.log_variances else 1)
        self.encoder = Encoder(*levels, width, self.layer_norm, layers)
        self.decoder = Decoder(*levels, layers)
