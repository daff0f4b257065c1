"""A codebook whose map is a transformer over its codes."""

import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.quantizers.codebook import dense


class Bridge(nn.Module):
    """K codewords from an embedding E through a transformer (FVQ's VQBridge, 2026).

    Compress: a patch of codes becomes a token, by one dense layer. Process: pre-norm blocks in
    which all tokens, and a few registers, attend to each other. Expand: a norm and a dense layer
    to the patch's codewords. Tokens have no positions: their embeddings tell them apart.

    Attributes:
      size: K, a multiple of patch.
      dim: D.
      embedding_dim: D_e, columns of E.
      hidden: width of a token, a multiple of heads.
      base: what E starts from: N(0, 1), or one of bases.py.
      patch: codes of a token; a head holds (K / patch)^2 scores.
      layers: blocks.
      heads: of a block's attention.
      registers: learned tokens that are no code.
    """

    # As Codebook's: which map it is.
    kind: ClassVar[str] = "transformer"

    size: int
    dim: int
    embedding_dim: int
    hidden: int
    base: Callable = nn.initializers.normal(1.0)
    patch: int = 16
    layers: int = 2
    heads: int = 4
    registers: int = 2

    @nn.compact
    def __call__(self) -> jax.Array:
        """The codebook, f32[K, D].

        Raises:
          ValueError: where the patch does not divide K, or the heads the width.
        """
        if self.size % self.patch:
            raise ValueError(
                f"{self.size} codewords are bridged in patches of {self.patch}; expected a divisor."
            )
        if self.hidden % self.heads:
            raise ValueError(
                f"A bridge {self.hidden} wide has {self.heads} heads; expected a divisor."
            )
        embedding = self.param("embedding", self.base, (self.size, self.embedding_dim))
        patches = embedding.reshape(self.size // self.patch, -1)
        tokens = dense(self.hidden, patches.shape[-1], "compress")(patches)
        normal = nn.initializers.normal(1.0)
        registers = self.param("registers", normal, (self.registers, self.hidden))
        tokens = jnp.concatenate([registers, tokens])
        for layer in range(self.layers):
            tokens = _Block(self.hidden, self.heads, name=f"block_{layer}")(tokens)
        tokens = nn.LayerNorm(name="norm")(tokens[self.registers :])
        codewords = dense(self.patch * self.dim, self.hidden, "expand")(tokens)
        return codewords.reshape(self.size, self.dim)


# On accelerators a product of float32 else rounds its factors, to TF32 or bfloat16.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class _Block(nn.Module):
    """Attention, then two dense layers with a GELU, each after a norm and added."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, tokens):
        def layer(features, name):
            return dense(features, self.width, name)

        normed = nn.LayerNorm(name="norm_1")(tokens)
        shape = (len(tokens), self.heads, self.width // self.heads)
        query, key, value = (
            layer(self.width, name)(normed).reshape(shape) for name in ("query", "key", "value")
        )
        scores = _einsum("qhd,khd->hqk", query, key) * shape[-1] ** -0.5
        attended = _einsum("hqk,khd->qhd", jax.nn.softmax(scores), value)
        tokens += layer(self.width, "out")(attended.reshape(tokens.shape))
        hidden = layer(4 * self.width, "widen")(nn.LayerNorm(name="norm_2")(tokens))
        return tokens + dense(self.width, 4 * self.width, "narrow")(jax.nn.gelu(hidden))
