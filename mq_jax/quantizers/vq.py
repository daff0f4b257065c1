"""Vector quantization: each encoding becomes its nearest codeword."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.additions import Restart, Term
from mq_jax.quantizers.attraction import attraction
from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.families import OfCodebook, Tabled
from mq_jax.quantizers.nearest import Lookup, nearest_codeword
from mq_jax.quantizers.quantizer import Advanced, Quantized
from mq_jax.quantizers.sphere import unit_vectors
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class VQ(OfCodebook, Tabled):
    """The nearest codeword of a codebook that a gradient moves (van den Oord et al., 2017).

    With `unit` both are compared, and decoded, on the unit sphere (Yu et al., 2022, ViT-VQGAN).
    The state is that of the restart and of each term, in this order; () without any.

    Attributes:
      codebook: module whose call returns f32[K, D].
      lookup: nearest_codeword, or one of its kind.
      commitment: a of `attraction`.
      codebook_weight: b of it.
      unit: whether z and the codewords are normalised.
      noise: of the estimator `diveq`.
      terms: further terms of the loss.
      restart: how idle codewords are overwritten, where they are parameters themselves; None:
        they are not.
    """

    codebook: Codebook
    lookup: Lookup = nearest_codeword
    commitment: float = 1.0
    codebook_weight: float = 1.0
    unit: bool = False
    noise: float = 0.0
    terms: tuple[Term, ...] = ()
    restart: Restart | None = None

    def __post_init__(self):
        if self.restart is not None and self.codebook.kind != "embedding":
            raise ValueError(
                f"a restart overwrites codewords, which a codebook of kind "
                f"{self.codebook.kind!r} computes; expected kind 'embedding', or no restart."
            )

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """The codebook's parameters, and the state of what is added."""
        params = self.codebook.init(rng)["params"]
        return params, tuple(piece.init(self.size, self.dim) for piece in self._additions)

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
        """As Quantizer's; rng is of the estimator's noise and of a restart's draws."""
        codewords = self.fold(params, state)
        z = self._comparable(z)
        indices = self.lookup(z, codewords)
        z_q = codewords[indices]
        loss, terms = self._loss(state, z, z_q, codewords)
        # z + (z_q - z) is not z_q to the last bit; evaluation decodes what the codes decode to.
        if not train:
            return Quantized(indices, z_q, z_q, loss, terms)
        z_hat = apply_straight_through(z, z_q, kind=straight_through, noise=self.noise, rng=rng)
        # Not the estimator's key again: its noise would then be the restart's draws.
        key = None if rng is None else jax.random.fold_in(rng, 1)
        statistics = tuple(piece.observe(z, codewords, indices, key) for piece in self._additions)
        return Quantized(indices, z_q, z_hat, loss, terms, statistics)

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """One step of what is added; without a restart, nothing but gradients moves codewords."""
        first = 0 if self.restart is None else 1
        pairs = zip(self.terms, state[first:], statistics[first:], strict=True)
        advanced = tuple(term.advance(*pair) for term, *pair in pairs)
        if self.restart is None:
            return Advanced(params, advanced)
        codewords, its_state, replaced = self.restart.advance(
            params["embedding"], state[0], statistics[0], rng
        )
        replaced = jnp.broadcast_to(replaced[:, None], codewords.shape)
        return Advanced({"embedding": codewords}, (its_state, *advanced), {"embedding": replaced})

    def fold(self, params: Any, state: Any) -> jax.Array:
        """The codewords, f32[K, D]."""
        return self._comparable(self.codebook.apply({"params": params}))

    def encode(self, folded: jax.Array, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return self.lookup(self._comparable(z), folded)

    @property
    def _additions(self):
        return (*(() if self.restart is None else (self.restart,)), *self.terms)

    def _loss(self, state, z, z_q, codewords):
        """The pull between both and further terms: their weighted sum, and each by name."""
        weights = {"commitment": self.commitment, "codebook": self.codebook_weight}
        loss = attraction(z, z_q, **weights)
        if not self.terms:
            return loss, {}
        terms = {"attraction": loss}
        states = state[len(state) - len(self.terms) :]
        for term, its_state in zip(self.terms, states, strict=True):
            terms[term.name] = term(its_state, z, codewords)
            loss += term.weight * terms[term.name]
        return loss, terms

    def _comparable(self, vectors):
        return unit_vectors(vectors) if self.unit else vectors
