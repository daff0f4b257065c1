"""The auto-encoder of SQ-VAE (Takida et al., 2022), which the paper's MQVAE uses.

The last layer of either half multiplies in full float32 on any device: z goes into distances, and
pixels are what is measured. The others have JAX's default precision, TF32 on GPUs.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from mq_jax.models.convolution import (
    Upsample,
    initialisers,
    pointwise_convolution,
    tiled_convolution,
)

# PyTorch's defaults: its momentum of 0.1 weighs the new batch, Flax's 0.9 the old average.
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}


class ResidualBlock(nn.Module):
    """x + BN(1x1(ReLU(BN(3x3(ReLU(x))))))."""

    init_std: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, h, w, C] -> f32[B, h, w, C]."""
        y = x
        for size in (3, 1):
            y = _convolution(x.shape[-1], size, y, self.init_std, use_bias=False)(nn.relu(y))
            y = nn.BatchNorm(use_running_average=not train, **BATCH_NORM)(y)
        return x + y


class Encoder(nn.Module):
    """Strided convolutions, a 3x3 convolution, residual blocks, 1x1 to D.

    Attributes:
      channels: width of each strided convolution; each halves the height and the width.
      blocks: residual blocks.
      dim: D.
      layer_norm: whether z is normalised over its channels.
      init_std: as the auto-encoder's.
    """

    channels: Sequence[int]
    blocks: int
    dim: int
    layer_norm: bool
    init_std: float

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, H, W, 3] in [-1, 1] -> f32[B, h, w, D]."""
        x = images
        for features in self.channels:
            # Padded by one on each side: windows centred as in PyTorch, not shifted as by "SAME".
            settings = {"strides": 2, "padding": 1, "use_bias": False}
            x = _convolution(features, 4, x, self.init_std, **settings)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, **BATCH_NORM)(x))
        x = _convolution(self.channels[-1], 3, x, self.init_std)(x)
        for _ in range(self.blocks):
            x = ResidualBlock(self.init_std)(x, train=train)
        highest = jax.lax.Precision.HIGHEST
        project = _convolution(self.dim, 1, x, self.init_std, precision=highest)
        z = project(nn.relu(x))
        return nn.LayerNorm(epsilon=1e-5)(z) if self.layer_norm else z


class Decoder(nn.Module):
    """The encoder's mirror: 1x1 from D, residual blocks, transposed convolutions.

    Attributes:
      channels: as the encoder's, in the encoder's order.
      blocks: residual blocks.
      init_std: as the auto-encoder's.
    """

    channels: Sequence[int]
    blocks: int
    init_std: float

    def setup(self):
        highest = jax.lax.Precision.HIGHEST
        self.head = _upsample(3, self.init_std, use_bias=True, precision=highest)

    @nn.compact
    def features(self, z: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, h, w, D] -> f32[B, H/2, W/2, C], the input of the last layer."""
        x = _convolution(self.channels[-1], 1, z, self.init_std)(z)
        for _ in range(self.blocks):
            x = ResidualBlock(self.init_std)(x, train=train)
        x = _convolution(self.channels[-1], 3, x, self.init_std, use_bias=False)(nn.relu(x))
        for features in reversed(self.channels[:-1]):
            x = nn.relu(nn.BatchNorm(use_running_average=not train, **BATCH_NORM)(x))
            x = _upsample(features, self.init_std, use_bias=False)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, **BATCH_NORM)(x))

    def pixels(self, features: jax.Array) -> jax.Array:
        """f32[B, H/2, W/2, C] -> f32[B, H, W, 3]."""
        return self.head(features)


class AutoEncoder(nn.Module):
    """An encoder and a decoder under one parameter tree, theta.

    Attributes:
      channels: widths of the strided convolutions, outermost first.
      blocks: residual blocks on either side.
      dim: D.
      layer_norm: whether z is normalised over its channels.
      init_std: standard deviation of the kernels at initialisation, with biases at zero; 0:
        PyTorch's default, kernels and biases uniform in +-1/sqrt(fan_in).
      log_variances: whether the encoder gives D further channels, behind those of z.
    """

    channels: Sequence[int]
    blocks: int
    dim: int
    layer_norm: bool
    init_std: float
    log_variances: bool = False

    def setup(self):
        width = self.dim * (2 if self.log_variances else 1)
        self.encoder = Encoder(self.channels, self.blocks, width, self.layer_norm, self.init_std)
        self.decoder = Decoder(self.channels, self.blocks, self.init_std)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Both halves without a quantizer between them; initialisation runs it."""
        return self.decode(self.encode(images, train=train)[..., : self.dim], train=train)

    def encode(self, images: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, H, W, 3] in [-1, 1] -> z f32[B, h, w, D]."""
        return self.encoder(images, train=train)

    def decode(self, z: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, h, w, D] -> f32[B, H, W, 3], nominally in [-1, 1], not clipped."""
        return self.pixels(self.features(z, train=train))

    def features(self, z: jax.Array, *, train: bool) -> jax.Array:
        """f32[B, h, w, D] -> f32[B, H/2, W/2, C]: the decoder up to its last layer."""
        return self.decoder.features(z, train=train)

    def pixels(self, features: jax.Array) -> jax.Array:
        """f32[B, H/2, W/2, C] -> x_hat f32[B, H, W, 3]: the last layer, decoder/head, alone."""
        return self.decoder.pixels(features)

    @property
    def downsampling(self) -> int:
        """Pixels of the image, along one side, to one code."""
        return 2 ** len(self.channels)


def _convolution(features, size, x, init_std, **settings):
    """A convolution for x."""
    kernel_init, bias_init = initialisers(init_std, size * size * x.shape[-1])
    if size == 1:
        settings["conv_general_dilated"] = pointwise_convolution
    elif size == 3:
        settings["conv_general_dilated"] = tiled_convolution
    return nn.Conv(features, (size, size), kernel_init=kernel_init, bias_init=bias_init, **settings)


def _upsample(features, init_std, **settings):
    """A transposed convolution; of its 4 x 4 taps PyTorch's fan-in counts the outputs."""
    kernel_init, bias_init = initialisers(init_std, 16 * features)
    return Upsample(features, kernel_init, bias_init=bias_init, **settings)
