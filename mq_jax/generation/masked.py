"""A transformer that fills in places that are masked (Chang et al., 2022, MaskGIT)."""

import jax
import jax.numpy as jnp

from mq_jax.generation.blocks import INIT
from mq_jax.generation.network import Network


class Masked(Network):
    """p(t_p | class, tokens of the known places), of every place p at once."""

    causal = False

    def setup(self):
        super().setup()
        self.mask = self.param("mask", INIT, (self.net.width,))
        # As in MaskGIT: masked places are alike but for these, and rotation tells distances alone.
        self.places = self.param("places", INIT, (self.space.places, self.net.width))

    def __call__(
        self,
        tokens: jax.Array,
        labels: jax.Array | None,
        known: jax.Array,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Logits of every token, given the class, the known places and its own levels before it.

        Args:
          tokens: i32[B, n, J].
          labels: i32[B]; None where there are no classes.
          known: bool[B, n].
          train: whether dropout acts; then there is an rng `dropout`.

        Returns:
          f32[B, n, J, K].
        """
        context = self.contexts(tokens, labels, known, train=train)
        return self.levels(context, self.embedding(tokens), train=train)

    def contexts(
        self,
        tokens: jax.Array,
        labels: jax.Array | None,
        known: jax.Array,
        *,
        train: bool = False,
    ) -> jax.Array:
        """What the levels of every place are predicted from.

        Args:
          tokens: i32[B, n, J], read where they are known.
          labels: as above.
          known: as above.
          train: as above.

        Returns:
          f[B, n, C].
        """
        mask = self.mask.astype(self.net.dtype)
        x = jnp.where(known[..., None], self.embed(tokens), mask)
        x = x + self.places.astype(self.net.dtype)
        x = jnp.concatenate([self.embedding.label(labels, tokens.shape[0]), x], axis=1)
        x = self.dropout(x, deterministic=not train)
        context, _ = self.trunk(x, angles=self.angles(0, x.shape[1]), train=train)
        return context[:, 1:]
