"""The discriminator: PatchGAN (Isola et al., 2017), which judges overlapping patches."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.quantizers.initialiser import uniform_fan_in

NORMS = ("batch", "group", "none")


def smallest_side(layers: int) -> int:
    """The least height and width of an image, in pixels, that gives a logit."""
    return 3 * 2**layers


class Discriminator(nn.Module):
    """4x4 convolutions, `layers` of them with stride 2, then two with stride 1, to a logit a patch.

    LeakyReLU of slope 0.2 between them; normalised are all but the first and the last. With three
    strided layers a logit sees 70 x 70 pixels. Initial values are the original's: kernels
    N(0, 0.02^2), scales N(1, 0.02^2), biases uniform in +-1/sqrt(fan_in).

    `batch` is BatchNorm with the statistics of the batch it is given, always: a discriminator is
    never evaluated with running ones, so none are kept. Under `jax.jit` with a sharded batch they
    are of the whole batch. `group` has 16 channels to a group (fewer where 16 do not divide).

    Attributes:
      channels: width of the first layer; each further one doubles it, to at most eight times it.
      layers: strided convolutions.
      norm: one of NORMS.
      dtype: of convolutions but the last; statistics, the last and the logits are float32, which
        no device rounds in the last.
    """

    channels: int
    layers: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits, positive for real.

        Args:
          images: f32[B, H, W, 3] in [-1, 1].

        Returns:
          f32[B, H / 2^layers - 2, W / 2^layers - 2, 1].

        Raises:
          ValueError: if `norm` is none of NORMS, or the images are too small for one logit.
        """
        self._check(images)
        x = images
        for layer in range(self.layers + 1):
            features = self.channels * min(2**layer, 8)
            normalised = layer > 0 and self.norm != "none"
            stride = 2 if layer < self.layers else 1
            x = self._convolution(x, features, stride, self.dtype, use_bias=not normalised)
            x = nn.leaky_relu(self._norm(features)(x) if normalised else x, 0.2)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return self._convolution(x, 1, 1, wide, precision=jax.lax.Precision.HIGHEST)

    def _convolution(self, x, features, stride, dtype, *, use_bias=True, precision=None):
        layer = nn.Conv(
            features,
            (4, 4),
            strides=stride,
            padding=1,
            use_bias=use_bias,
            dtype=dtype,
            precision=precision,
            kernel_init=nn.initializers.normal(0.02),
            bias_init=uniform_fan_in(16 * x.shape[-1]),
        )
        return layer(x)

    def _norm(self, features):
        make = functools.partial(
            nn.GroupNorm,
            num_groups=None,
            epsilon=1e-5,
            dtype=self.dtype,
            scale_init=_normal_around_one,
        )
        if self.norm == "group":
            return make(group_size=math.gcd(features, 16))
        # Groups of one channel, over the batch as well: BatchNorm without running statistics.
        return make(group_size=1, reduction_axes=(0, 1, 2, 3))

    def _check(self, images):
        if self.norm not in NORMS:
            raise ValueError(f"norm is {self.norm!r}; expected one of {NORMS}.")
        smallest = smallest_side(self.layers)
        height, width = images.shape[1:3]
        if min(height, width) < smallest:
            raise ValueError(
                f"images are {height} x {width} pixels; a discriminator with layers = "
                f"{self.layers} expects at least {smallest} on each side: use larger images or "
                "fewer layers."
            )


def _normal_around_one(key, shape, dtype=jnp.float32):
    """N(1, 0.02^2)."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)
