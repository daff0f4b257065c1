"""What quantizers of one family share: a table of rows, codewords of a net, codes of arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.quantizer import Advanced


class Stateless:
    """Nothing but gradients moves it, and nothing at all where it has no parameters."""

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """As they are."""
        return Advanced(params, state)


class OfCodebook:
    """K and D are those of the field `codebook`, a module whose call returns f32[K, D]."""

    @property
    def size(self) -> int:
        """K."""
        return self.codebook.size

    @property
    def dim(self) -> int:
        """D."""
        return self.codebook.dim


class Tabled:
    """It folds to a table f32[K, D], and a code decodes to its row."""

    depth = 0

    @property
    def channels(self) -> int:
        """D."""
        return self.dim

    def decode(self, folded: jax.Array, indices: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return folded[indices]

    def codewords(self, folded: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return folded


class Arithmetic(Stateless):
    """It has nothing to learn, to count or to fold: indices and values follow by arithmetic."""

    depth = 0

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """Nothing to learn, nothing to count."""
        return (), ()

    def fold(self, params: Any, state: Any) -> tuple:
        """Nothing."""
        return ()

    def codewords(self, folded: tuple) -> jax.Array:
        """As Quantizer's."""
        return self.decode(folded, jnp.arange(self.size, dtype=jnp.int32))
