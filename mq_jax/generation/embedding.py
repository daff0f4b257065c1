"""Tokens and classes as vectors."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.generation.blocks import INIT
from mq_jax.generation.sizes import Net
from mq_jax.generation.space import TokenSpace


class Embedding(nn.Module):
    """A vector for each code of each level, one for each class and one for no class."""

    space: TokenSpace
    net: Net

    def setup(self):
        space, width = self.space, self.net.width
        self.tokens = self.param("tokens", INIT, (space.levels, space.size, width))
        self.classes = self.param("classes", INIT, (space.classes + 1, width))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """i32[B, m, J] -> f[B, m, J, C], each level by its own table."""
        vectors = self.tokens[jnp.arange(self.space.levels), tokens]
        return vectors.astype(self.net.dtype)

    def level(self, tokens: jax.Array, level: int) -> jax.Array:
        """i32[B, m] of one level -> f[B, m, C]."""
        return self.tokens[level, tokens].astype(self.net.dtype)

    def label(self, labels: jax.Array | None, batch: int) -> jax.Array:
        """i32[B], None where there are no classes -> f[B, 1, C]."""
        if labels is None:
            labels = jnp.full(batch, self.space.null)
        return self.classes[labels][:, None].astype(self.net.dtype)
