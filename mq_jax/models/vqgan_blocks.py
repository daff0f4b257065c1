"""What VQGAN's two halves are made of: residual blocks, attention, upsampling."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.models.convolution import initialisers
from mq_jax.models.upsampling import upsampling_convolution


@dataclasses.dataclass(frozen=True)
class Layers:
    """What the layers of all blocks have in common.

    Attributes:
      groups: of GroupNorm.
      init_std: standard deviation of the kernels at initialisation; 0: PyTorch's default.
      dtype: of convolutions and projections; parameters and statistics stay float32.
      remat: whether the backward pass computes each block anew rather than keep its inside.
    """

    groups: int
    init_std: float
    dtype: Any
    remat: bool

    def convolution(self, features: int, size: int, inputs: int, **settings) -> nn.Conv:
        """A convolution over `inputs` channels."""
        kernel_init, bias_init = initialisers(self.init_std, size * size * inputs)
        settings = {"dtype": self.dtype, **settings}
        return nn.Conv(
            features, (size, size), kernel_init=kernel_init, bias_init=bias_init, **settings
        )

    def wide_convolution(self, features: int, size: int, inputs: int) -> nn.Conv:
        """A convolution in float32 or wider, which no device rounds to TF32 or bfloat16."""
        settings = {"dtype": wide(self.dtype), "precision": jax.lax.Precision.HIGHEST}
        return self.convolution(features, size, inputs, **settings)

    def norm(self) -> nn.GroupNorm:
        """GroupNorm, its statistics in float32."""
        return nn.GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype)


class ResidualBlock(nn.Module):
    """x + conv(swish(GN(conv(swish(GN(x)))))), x through a 1x1 convolution where widths differ."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f[B, h, w, C] -> f[B, h, w, features]."""
        y = x
        for _ in range(2):
            y = nn.swish(self.layers.norm()(y))
            y = self.layers.convolution(self.features, 3, y.shape[-1])(y)
        if x.shape[-1] != self.features:
            x = self.layers.convolution(self.features, 1, x.shape[-1], name="shortcut")(x)
        return x + y


class Attention(nn.Module):
    """x + W_o softmax(q k^T / sqrt(C)) v over all positions, q, k, v from GN(x); one head."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, inside: jax.Array | None = None) -> jax.Array:
        """f[B, h, w, C] -> f[B, h, w, C]; `inside`: bool[B, h, w, 1], the positions looked at."""
        width = self.features
        y = self.layers.norm()(x)
        query, key, value = [
            self.layers.convolution(width, 1, width, name=name)(y).reshape(x.shape[0], -1, width)
            for name in ("query", "key", "value")
        ]
        logits = _logits(query, key)
        if inside is not None:
            logits = jnp.where(inside.reshape(x.shape[0], 1, -1), logits, -jnp.inf)
        weights = nn.softmax(logits * width**-0.5)
        mixed = jnp.einsum("bqk,bkc->bqc", weights.astype(value.dtype), value).reshape(x.shape)
        return x + self.layers.convolution(width, 1, width, name="out")(mixed)


@jax.custom_jvp
def _logits(query, key):
    """q k^T f[B, q, k], in float32 or wider."""
    wider = wide(query.dtype)
    return jnp.einsum("bqc,bkc->bqk", query, key, preferred_element_type=wider)


@_logits.defjvp
def _logits_tangent(primals, tangents):
    """The tangent; it and its cotangents have the dtype of the factors, as in any other layer."""
    (query, key), (d_query, d_key) = primals, tangents
    # Else a float32 cotangent would widen the other factor of its products.
    product = functools.partial(jnp.einsum, "bqc,bkc->bqk")
    tangent = product(d_query, key) + product(query, d_key)
    return _logits(query, key), tangent.astype(wide(query.dtype))


def middle_blocks(attention: bool) -> tuple[type[nn.Module], ...]:
    """The classes at the lowest resolution, last in the encoder and first in the decoder."""
    return (ResidualBlock, *((Attention,) if attention else ()), ResidualBlock)


def level_blocks(count: int, attention: bool) -> tuple[type[nn.Module], ...]:
    """The classes of a level's blocks: as many residual ones, each followed by attention or not."""
    return ((ResidualBlock, Attention) if attention else (ResidualBlock,)) * count


class Stack(nn.Module):
    """Blocks of one width one after another, of the given classes."""

    kinds: Sequence[type[nn.Module]]
    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f[B, h, w, C] -> f[B, h, w, features]."""
        for i, kind in enumerate(self.kinds):
            block = nn.remat(kind) if self.layers.remat else kind
            # Named, since a block's parameters lie at the same path with remat and without.
            x = block(self.features, self.layers, name=f"{kind.__name__}_{i}")(x)
        return x


class NearestUpsample(nn.Module):
    """Nearest-neighbour upsampling by two and a 3x3 convolution."""

    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f[B, h, w, C] -> f[B, 2h, 2w, C]."""
        width = x.shape[-1]
        kernel_init, bias_init = initialisers(self.layers.init_std, 9 * width)
        kernel = self.param("kernel", kernel_init, (3, 3, width, width))
        bias = self.param("bias", bias_init, (width,))
        dtype = self.layers.dtype
        return upsampling_convolution(x.astype(dtype), kernel) + bias.astype(dtype)


def wide(dtype: Any) -> Any:
    """The dtype, or float32 where that has more digits."""
    return jnp.promote_types(dtype, jnp.float32)
