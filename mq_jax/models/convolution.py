"""The 4x4 transposed convolution with stride 2, written as four dense 2x2 convolutions.

Each computes one of the four phases of the output pixels, which are then interleaved. The
parameters and the FLOPs are those of the dilated form; what goes is the dilation, which XLA's
CPU backend runs many times slower, forward and backward. (The strided convolution of the
encoder is fast as it stands: folding its pixels into channels was measured to be slower.)

So it is on every device. XLA hands a dilated convolution to cuDNN as a transposed one only where
its kernel is the reverse of another, which this one is not; else it fills the images up with zeros
and multiplies them all, four times the FLOPs: xla/service/gpu/transforms/conv_rewriter.cc and
conv_padding_legalization.cc. Read there, and not measured.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.initializers import Initializer

from mq_jax.models import winograd
from mq_jax.quantizers.initialiser import uniform_fan_in


def transposed_convolution(
    images: jax.Array, kernel: jax.Array, *, precision: jax.lax.Precision | None = None
) -> jax.Array:
    """The transpose of a 4x4 convolution with stride 2 and one pixel of padding.

    Output row 2i + p sums kernel row 2a + p times input row i + p - 1 + a over a in {0, 1}, and
    so for the columns: `jax.lax.conv_transpose` with its kernel as it is, not flipped.

    Args:
      images: f32[B, H, W, C].
      kernel: f32[4, 4, C, F].
      precision: of the products; None: JAX's default.

    Returns:
      f32[B, 2H, 2W, F].
    """
    b, h, w, c = images.shape
    features = kernel.shape[3]
    # Row 2a + p of the kernel is tap a of phase p.
    taps = kernel.reshape(2, 2, 2, 2, c, features)

    def phase(p, q):
        return jax.lax.conv_general_dilated(
            images,
            taps[:, p, :, q],
            window_strides=(1, 1),
            padding=((1 - p, p), (1 - q, q)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )

    rows = [jnp.stack([phase(p, 0), phase(p, 1)], axis=3) for p in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, features)


def pointwise_convolution(
    images: jax.Array, kernel: jax.Array, *_, precision: jax.lax.Precision | None, **__
) -> jax.Array:
    """A 1x1 convolution as a matrix product, in the place that Flax's Conv has for its own.

    The kernel gradient is then a matrix product too: XLA's CPU backend takes the one of the
    convolution, which it reads in another order, four times as long. On other devices as well,
    whose libraries multiply matrices for it themselves.

    Args:
      images: f[B, H, W, C].
      kernel: f[1, 1, C, F].
      precision: of the products; None: JAX's default.

    Returns:
      f[B, H, W, F].
    """
    flat = images.reshape(-1, images.shape[-1])
    product = jax.lax.dot(flat, kernel.reshape(kernel.shape[2:]), precision=precision)
    return product.reshape(*images.shape[:-1], -1)


def tiled_convolution(images: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
    """winograd.convolution, in the place that Flax's Conv has for its own."""
    return winograd.convolution(images, kernel)


def initialisers(init_std: float, fan_in: int) -> tuple[Initializer, Initializer]:
    """The initialisers of a kernel and of its bias.

    Args:
      init_std: N(0, init_std^2) for the kernel, and zeros; 0: PyTorch's default, both uniform in
        +-1/sqrt(fan_in).
      fan_in: as PyTorch counts it.

    Returns:
      (of the kernel, of the bias).
    """
    if init_std > 0:
        return nn.initializers.normal(init_std), nn.initializers.zeros_init()
    return uniform_fan_in(fan_in), uniform_fan_in(fan_in)


class Upsample(nn.Module):
    """A transposed 4x4 convolution with stride 2: doubles the height and the width.

    Attributes:
      features: output channels.
      kernel_init: initialiser of the kernel.
      use_bias: whether to add a bias.
      precision: of the products; None: JAX's default.
      bias_init: initialiser of the bias.
    """

    features: int
    kernel_init: Initializer
    use_bias: bool
    precision: jax.lax.Precision | None = None
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """f32[B, H, W, C] -> f32[B, 2H, 2W, F]."""
        shape = (4, 4, images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        out = transposed_convolution(images, kernel, precision=self.precision)
        if self.use_bias:
            out += self.param("bias", self.bias_init, (self.features,))
        return out
