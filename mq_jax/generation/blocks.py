"""Layers of the transformers, stacked: pre-norm attention and SwiGLU, with a cache or without."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.generation.attention import attend
from mq_jax.generation.rotary import rotate
from mq_jax.generation.sizes import Net

INIT = nn.initializers.normal(0.02)


class Cache(NamedTuple):
    """Keys and values of all layers.

    Attributes:
      key: f[L, B, S, H, d], rotated; zero where nothing is written.
      value: f[L, B, S, H, d].
    """

    key: jax.Array
    value: jax.Array

    def written(self, key: jax.Array, value: jax.Array, layer, start) -> "Cache":
        """With f[B, T, H, d] of a layer at places start to start + T."""
        where = (layer, 0, start, 0, 0)
        return Cache(
            jax.lax.dynamic_update_slice(self.key, key[None], where),
            jax.lax.dynamic_update_slice(self.value, value[None], where),
        )


def make_cache(net: Net, layers: int, batch: int, places: int) -> Cache:
    """An empty cache.

    Args:
      net: the transformer.
      layers: L.
      batch: B.
      places: S.

    Returns:
      Of zeros in the net's dtype.
    """
    shape = (layers, batch, places, net.heads, net.head_width)
    return Cache(jnp.zeros(shape, net.dtype), jnp.zeros(shape, net.dtype))


class Attention(nn.Module):
    """W_o of attention over the positions of a sequence, or over those not later."""

    net: Net
    causal: bool

    @nn.compact
    def __call__(self, x, layer, cache, angles, start):
        """f[B, T, C] and the cache -> f[B, T, C] and the cache with these positions."""
        net = self.net
        qkv = dense(net, 3 * net.width, "qkv")(x)
        query, key, value = jnp.moveaxis(
            qkv.reshape(*x.shape[:2], 3, net.heads, net.head_width), 2, 0
        )
        if net.qk_norm:
            query, key = norm(net, "query_norm")(query), norm(net, "key_norm")(key)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        if cache is not None:
            cache = cache.written(key, value, layer, start)
            key, value = cache.key[layer], cache.value[layer]
        mixed = attend(query, key, value, causal=self.causal, start=start)
        return dense(net, net.width, "out")(mixed.reshape(x.shape)), cache


class SwiGLU(nn.Module):
    """W_2 (silu(W_1 x) * W_3 x) (Shazeer, 2020)."""

    net: Net

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """f[B, T, C] -> f[B, T, C]."""
        gate, up = [dense(self.net, self.net.hidden, name)(x) for name in ("gate", "up")]
        return dense(self.net, self.net.width, "down")(nn.silu(gate) * up)


class Block(nn.Module):
    """x + attention(norm(x)), then x + SwiGLU(norm(x))."""

    net: Net
    causal: bool
    train: bool

    @nn.compact
    def __call__(self, carry, layer, angles, start):
        """A layer of a scan, which carries f[B, T, C] and the cache."""
        x, cache = carry
        mixed, cache = Attention(self.net, self.causal, name="attention")(
            norm(self.net, "attention_norm")(x), layer, cache, angles, start
        )
        x = x + self._dropped(mixed, self.net.residual_dropout)
        inside = SwiGLU(self.net, name="ffn")(norm(self.net, "ffn_norm")(x))
        return (x + self._dropped(inside, self.net.ffn_dropout), cache), None

    def _dropped(self, x, rate):
        return nn.Dropout(rate, deterministic=not self.train)(x)


class Stack(nn.Module):
    """Layers one after another and a last normalisation.

    One loop, whose parameters have the layers on their first axis: compiled once whatever the
    number of layers.

    Attributes:
      net: the transformer.
      layers: how many.
      causal: whether a position sees only those not later.
    """

    net: Net
    layers: int
    causal: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        angles: jax.Array | None = None,
        cache: Cache | None = None,
        start: jax.Array | int | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """Values of all positions.

        Args:
          x: f[B, T, C].
          angles: f32[T, d/2], None for positions that do not turn.
          cache: of L layers, with which positions before `start` are seen.
          start: i32[], place of the first position; None without a cache.
          train: whether dropout acts; then there is an rng `dropout`.

        Returns:
          (f[B, T, C], the cache with these positions or None).
        """
        block = nn.remat(Block, prevent_cse=False) if self.net.remat else Block
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.layers,
        )(self.net, self.causal, train, name="layers")
        (x, cache), _ = layers((x, cache), jnp.arange(self.layers), angles, start)
        return norm(self.net, "norm")(x), cache


def dense(net: Net, features: int, name: str) -> nn.Dense:
    """A layer without bias."""
    return nn.Dense(features, use_bias=False, kernel_init=INIT, dtype=net.dtype, name=name)


def norm(net: Net, name: str) -> nn.RMSNorm:
    """RMSNorm over the last axis, computed in float32 and rounded to the net's dtype."""
    return nn.RMSNorm(epsilon=1e-5, dtype=net.dtype, name=name)
