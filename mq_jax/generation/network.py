"""What both transformers are made of: vectors in, a trunk, a head for each level."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.generation.blocks import Cache, Stack
from mq_jax.generation.embedding import Embedding
from mq_jax.generation.levels import Levels
from mq_jax.generation.rotary import grid_angles
from mq_jax.generation.sizes import Net
from mq_jax.generation.space import TokenSpace


class Network(nn.Module):
    """A transformer whose first position is the class; J codes enter as the sum of their vectors.

    Attributes:
      space: of the tokens.
      net: the transformer.
      causal: whether a position sees only those not later.
    """

    space: TokenSpace
    net: Net
    causal: ClassVar[bool]

    def setup(self):
        self.embedding = Embedding(self.space, self.net)
        self.trunk = Stack(self.net, self.net.layers, self.causal)
        self.levels = Levels(self.space, self.net)
        self.dropout = nn.Dropout(self.net.token_dropout)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """i32[B, m, J] -> f[B, m, C]."""
        return self.embedding(tokens).sum(-2)

    def embed_level(self, tokens: jax.Array, level: int) -> jax.Array:
        """i32[B, m] of one level -> f[B, m, C]."""
        return self.embedding.level(tokens, level)

    def level_step(self, inputs: jax.Array, level: int, cache: Cache | None) -> tuple:
        """As Levels.step."""
        return self.levels.step(inputs, level, cache)

    def level_cache(self, places: int) -> Cache | None:
        """As Levels.cache."""
        return self.levels.cache(places)

    def angles(self, start: jax.Array | int, length: int) -> jax.Array:
        """f32[length, d/2] of the positions from `start`, of which 0 is the class's."""
        table = grid_angles(self.space.height, self.space.width, self.net.head_width)
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(table), start, length)
