"""A decoder-only transformer over tokens, row by row (Sun et al., 2024, LlamaGen)."""

import jax
import jax.numpy as jnp

from mq_jax.generation.blocks import Cache, make_cache
from mq_jax.generation.network import Network


class Decoder(Network):
    """p(t | class) = prod_p p(t_p | class, t_1, ..., t_{p-1}).

    Its sequence is the class, then all tokens but the last. Position p, from 0, says what place p
    has.
    """

    causal = True

    def __call__(
        self, tokens: jax.Array, labels: jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """Logits of every token, given the class and all tokens before it.

        Args:
          tokens: i32[B, n, J].
          labels: i32[B]; None where there are no classes.
          train: whether dropout acts; then there is an rng `dropout`.

        Returns:
          f32[B, n, J, K].
        """
        context = self.contexts(tokens, labels, train=train)
        return self.levels(context, self.embedding(tokens), train=train)

    def contexts(
        self, tokens: jax.Array, labels: jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """What the levels of every place are predicted from.

        Args:
          tokens: as above; the last place's are not read.
          labels: as above.
          train: as above.

        Returns:
          f[B, n, C].
        """
        label = self.embedding.label(labels, tokens.shape[0])
        x = jnp.concatenate([label, self.embed(tokens[:, :-1])], axis=1)
        x = self.dropout(x, deterministic=not train)
        return self.trunk(x, angles=self.angles(0, self.space.places), train=train)[0]

    def prefill(
        self, labels: jax.Array | None, tokens: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Writes the class and given tokens but the last into a cache.

        Args:
          labels: i32[B]; None where there are no classes.
          tokens: i32[B, m, J] of the first m places.
          cache: empty.

        Returns:
          (f[B, 1, C], what position m has for input: the last token, or the class where m is 0;
          the cache with positions 0 to m - 1).
        """
        x = self.embedding.label(labels, tokens.shape[0])
        length = tokens.shape[1]
        if not length:
            return x, cache
        embedded = self.embed(tokens)
        x = jnp.concatenate([x, embedded[:, :-1]], axis=1)
        _, cache = self.trunk(x, angles=self.angles(0, length), cache=cache, start=0)
        return embedded[:, -1:], cache

    def begin(self, labels: jax.Array | None, tokens: jax.Array) -> tuple[jax.Array, Cache]:
        """Reads the class and the first places, however few, in one pass.

        Args:
          labels: i32[B]; None where there are no classes.
          tokens: i32[B, m, J] of the first m places, m < n.

        Returns:
          (f[B, 1, C], the context of place m; the cache with positions 0 to m).
        """
        batch = tokens.shape[0]
        x = jnp.concatenate([self.embedding.label(labels, batch), self.embed(tokens)], axis=1)
        angles, cache = self.angles(0, x.shape[1]), self.cache(batch)
        x, cache = self.trunk(x, angles=angles, cache=cache, start=0)
        return x[:, -1:], cache

    def step(self, x: jax.Array, place: jax.Array | int, cache: Cache) -> tuple[jax.Array, Cache]:
        """The context of one place.

        Args:
          x: f[B, 1, C], what its position has for input.
          place: i32[].
          cache: of the positions before.

        Returns:
          (f[B, 1, C], the cache with this position).
        """
        return self.trunk(x, angles=self.angles(place, 1), cache=cache, start=place)

    def cache(self, batch: int) -> Cache:
        """An empty cache for so many images."""
        return make_cache(self.net, self.net.layers, batch, self.space.places)
