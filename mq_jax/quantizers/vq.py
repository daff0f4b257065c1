"""Vector quantization: each encoding becomes its nearest codeword."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.attraction import attraction
from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.nearest import Lookup, nearest_codeword
from mq_jax.quantizers.quantizer import Advanced, Quantized
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class VQ:
    """The nearest codeword of a codebook that a gradient moves (van den Oord et al., 2017).

    With `unit` both are compared, and decoded, on the unit sphere (Yu et al., 2022, ViT-VQGAN).

    Attributes:
      codebook: module whose call returns f32[K, D].
      lookup: nearest_codeword, or one of its kind.
      commitment: a of `attraction`.
      codebook_weight: b of it.
      unit: whether z and the codewords are normalised.
      noise: of the estimator `diveq`.
    """

    codebook: Codebook
    lookup: Lookup = nearest_codeword
    commitment: float = 1.0
    codebook_weight: float = 1.0
    unit: bool = False
    noise: float = 0.0

    depth = 0

    @property
    def size(self) -> int:
        """K."""
        return self.codebook.size

    @property
    def dim(self) -> int:
        """D."""
        return self.codebook.dim

    channels = dim

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """The codebook's parameters, and no state."""
        return self.codebook.init(rng)["params"], ()

    def __call__(
        self,
        params: Any,
        state: Any,
        z: jax.Array,
        *,
        straight_through: str,
        train: bool,
        rng: jax.Array | None = None,
    ) -> Quantized:
        """As Quantizer's."""
        codewords = self.fold(params, state)
        z = self._comparable(z)
        indices = self.lookup(z, codewords)
        z_q = codewords[indices]
        weights = {"commitment": self.commitment, "codebook": self.codebook_weight}
        loss = attraction(z, z_q, **weights)
        # z + (z_q - z) is not z_q to the last bit; evaluation decodes what the codes decode to.
        z_hat = z_q
        if train:
            z_hat = apply_straight_through(
                z, z_q, kind=straight_through, noise=self.noise, rng=rng
            )
        return Quantized(indices, z_q, z_hat, loss, {})

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """Nothing but gradients moves it."""
        return Advanced(params, state)

    def fold(self, params: Any, state: Any) -> jax.Array:
        """The codewords, f32[K, D]."""
        return self._comparable(self.codebook.apply({"params": params}))

    def encode(self, folded: jax.Array, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return self.lookup(self._comparable(z), folded)

    def decode(self, folded: jax.Array, indices: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return folded[indices]

    def _comparable(self, vectors):
        return unit_vectors(vectors) if self.unit else vectors


def unit_vectors(vectors: jax.Array) -> jax.Array:
    """Vectors over their norms.

    Args:
      vectors: f32[..., D].

    Returns:
      f32[..., D]; zeros stay zeros, with a gradient of zero.
    """
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    apart = square > 1e-24
    # The root's slope is infinite at zero.
    return jnp.where(apart, vectors * jax.lax.rsqrt(jnp.where(apart, square, 1.0)), 0.0)
