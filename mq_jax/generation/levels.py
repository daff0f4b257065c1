"""The levels of a place, each given those before it (Lee et al., 2022, RQ-Transformer)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.generation.blocks import INIT, Cache, Stack, make_cache
from mq_jax.generation.sizes import Net
from mq_jax.generation.space import TokenSpace


class Levels(nn.Module):
    """p(t_1, ..., t_J | c) = prod_j p(t_j | c, t_1, ..., t_{j-1}) at every place, c its context.

    A small causal transformer over the J levels reads c, then the sum of the codes so far; each
    level has a head of its own, zero at first. One level is a head alone.
    """

    space: TokenSpace
    net: Net

    def setup(self):
        shape = (self.space.levels, self.net.width, self.space.size)
        self.head = self.param("head", nn.initializers.zeros_init(), shape)
        if self.space.levels > 1:
            self.orders = self.param("orders", INIT, shape[:2])
            self.stack = Stack(self.net, self.net.depth_layers, causal=True)

    def __call__(self, context: jax.Array, embedded: jax.Array, *, train: bool) -> jax.Array:
        """All levels of tokens that are known.

        Args:
          context: f[B, m, C].
          embedded: f[B, m, J, C] of the tokens; the last level's is not read.
          train: whether dropout acts.

        Returns:
          Logits f32[B, m, J, K].
        """
        inputs = context[..., None, :]
        if self.space.levels > 1:
            # In float32, since a step adds them up one by one.
            sums = jnp.cumsum(embedded[..., :-1, :].astype(jnp.float32), axis=-2)
            inputs = jnp.concatenate([inputs, sums.astype(context.dtype)], axis=-2)
            rows = inputs + self.orders.astype(context.dtype)
            rows = rows.reshape(-1, *inputs.shape[2:])
            inputs = self.stack(rows, train=train)[0].reshape(inputs.shape)
        return self._logits("bmjc,jck->bmjk", inputs, self.head)

    def step(
        self, inputs: jax.Array, level: int, cache: Cache | None
    ) -> tuple[jax.Array, Cache | None]:
        """One level.

        Args:
          inputs: f[B, m, C]: the context at level 0, later the sum of the codes so far.
          level: its number, from 0.
          cache: of the levels before; None where there is one level.

        Returns:
          (logits f32[B, m, K], the cache with this level).
        """
        if cache is not None:
            rows = (inputs + self.orders[level].astype(inputs.dtype)).reshape(-1, 1, self.net.width)
            rows, cache = self.stack(rows, cache=cache, start=level)
            inputs = rows.reshape(inputs.shape)
        return self._logits("bmc,ck->bmk", inputs, self.head[level]), cache

    def cache(self, places: int) -> Cache | None:
        """An empty cache of so many places; None where there is one level."""
        if self.space.levels == 1:
            return None
        return make_cache(self.net, self.net.depth_layers, places, self.space.levels)

    def _logits(self, formula, inputs, head):
        """In float32 from factors of the net's dtype."""
        head = head.astype(inputs.dtype)
        return jnp.einsum(formula, inputs, head, preferred_element_type=jnp.float32)
