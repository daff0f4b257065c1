"""Idle codewords move to anchors, which are encodings of the batch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.histogram import code_counts
from mq_jax.quantizers.nearest import as_constants, code_scores, first_minimum
from mq_jax.quantizers.sphere import unit_vectors

ANCHORS = ("closest", "probrandom")


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The restart of CVQ-VAE (Zheng & Vedaldi, 2023), every step, after the optimizer's.

        p_k <- d p_k + (1 - d) n_k / N
        a_k  = exp(-10 K p_k / (1 - d) - 1e-3)
        C_k <- (1 - a_k) C_k + a_k anchor_k

    p starts at 0: an idle code is replaced at once, one with K p_k > 0.005 hardly moves. An
    anchor is found among the encodings of the whole batch, for each code as it was before the
    optimizer's step. The lookup turned round: chunks of codewords, each against all encodings.

    Attributes:
      by: `closest`: the nearest encoding; `probrandom`: one drawn from the softmax over the
        batch of minus the squared distance over `temperature`.
      decay: d.
      cosine: whether unit vectors are compared; the anchor itself is the encoding as it is.
      temperature: of `probrandom`; with `cosine`, 2 is the softmax of the cosine itself.
      chunk: codewords compared at a time; 0 for all.
    """

    by: str = "closest"
    decay: float = 0.99
    cosine: bool = False
    temperature: float = 1.0
    chunk: int = 0

    def __post_init__(self):
        if self.by not in ANCHORS:
            raise ValueError(f"anchors are by {self.by!r}; expected one of {ANCHORS}.")

    def init(self, size: int, dim: int) -> jax.Array:
        """p, zeros."""
        return jnp.zeros(size)

    def observe(
        self, z: jax.Array, codewords: jax.Array, indices: jax.Array, rng: jax.Array
    ) -> Any:
        """Counts i32[K], and for each code the lowest score f32[K] and its anchor f32[K, D]."""
        flat, codewords = as_constants(z.reshape(-1, z.shape[-1]), codewords)
        lowest, nearest = self._search(flat, codewords, rng)
        return {
            "counts": code_counts(indices, len(codewords)),
            "scores": lowest,
            "anchors": flat[nearest],
        }

    def advance(
        self, codewords: jax.Array, state: jax.Array, statistics: Any, rng: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As Restart's; a code counts as replaced where the anchor is more than half of it."""
        counts = jnp.sum(statistics["counts"], axis=0)
        share = self.decay * state + (1 - self.decay) * counts / jnp.sum(counts)
        part = jnp.argmin(statistics["scores"], axis=0)
        anchors = statistics["anchors"][part, jnp.arange(len(codewords))]
        blend = jnp.exp(-10 * len(codewords) * share / (1 - self.decay) - 1e-3)
        mixed = (1 - blend[:, None]) * codewords + blend[:, None] * anchors
        return mixed, share, blend > 0.5

    def _search(self, z, codewords, rng):
        """For each codeword the lowest score among z, and the first z that has it."""
        if self.cosine:
            z, codewords = unit_vectors(z), unit_vectors(codewords)
        norms = jnp.sum(jnp.square(z), axis=-1)
        size = len(codewords)
        chunk = min(self.chunk or size, size)

        def visit(piece):
            some, number = piece
            # Squared distances less ||c||^2, which orders no encoding, nor part of a batch.
            found = code_scores(some, z, norms)
            if self.by == "probrandom":
                # The highest of logit + Gumbel noise is a draw from the softmax.
                key = jax.random.fold_in(rng, number)
                noise = jax.random.gumbel(key, found.shape, found.dtype)
                found = found / self.temperature - noise
            return first_minimum(found)

        pieces = jnp.pad(codewords, ((0, -size % chunk), (0, 0))).reshape(-1, chunk, z.shape[-1])
        if len(pieces) == 1:
            return visit((pieces[0], 0))
        lowest, nearest = jax.lax.map(visit, (pieces, jnp.arange(len(pieces))))
        return lowest.reshape(-1)[:size], nearest.reshape(-1)[:size]
