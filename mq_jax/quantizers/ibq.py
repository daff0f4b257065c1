"""Index backpropagation: the choice of a code has the gradient of a softmax, so all codes learn."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.attraction import attraction
from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.families import OfCodebook, Stateless, Tabled
from mq_jax.quantizers.quantizer import Quantized
from mq_jax.quantizers.soft_assignment import assign_softly, entropies, rows
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class IBQ(OfCodebook, Stateless, Tabled):
    """Index backpropagation quantization (Shi et al., 2025).

        l = scale * z C^T,    S = softmax(l),    H = one-hot of argmax l,    A = H - sg(S) + S
        z_hat = A C = H C in value

    by the product with a codeword, not the distance to it. z gets the decoder's gradient through
    the softmax alone, scale * g C^T J C, with no identity beside it; a codeword gets it where it
    was chosen, and through the softmax always. `straight_through` is not read.

    The loss is double * mean((z_hat - z)^2), `soft`, which moves all codewords through A; the
    pull between z and H C as `attraction` weighs it, `hard`; and the entropies of
    softmax(l / T), low for one encoding and high for all together, `entropy`. The last is of
    the encodings at hand: over a batch cut into parts it is the mean of the parts'.

    Attributes:
      codebook: module whose call returns f32[K, D].
      double: weight of `soft`.
      commitment: of `hard`, on z.
      codebook_weight: of `hard`, on the codewords.
      entropy_weight: of `entropy`.
      entropy_temperature: T.
      scale: of the logits: 1 in the paper. Products of D = 256 normal numbers saturate the
        softmax, which D^-0.5 prevents.
      chunk: codewords at a time in a softmax; 0 for all.
    """

    codebook: Codebook
    double: float = 1.0
    commitment: float = 1.0
    codebook_weight: float = 0.25
    entropy_weight: float = 0.05
    entropy_temperature: float = 0.01
    scale: float = 1.0
    chunk: int = 0

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
        """As Quantizer's; nothing is drawn."""
        codewords = self.fold(params, state)
        flat = rows(z, codewords, self.channels)
        # The codewords' gradient as values is that of the hard choice; as logits they keep theirs.
        values = jax.lax.stop_gradient(codewords)
        chosen = assign_softly(self._logits, flat, codewords, values, chunk=self.chunk)
        indices = chosen.indices.reshape(z.shape[:-1])
        z_q = codewords[indices]
        soft = chosen.mean.reshape(z_q.shape)
        # The soft value enters with its gradient alone.
        z_hat = apply_straight_through(soft, z_q, kind="encoder-and-codewords")
        weights = {"commitment": self.commitment, "codebook": self.codebook_weight}
        terms = {"soft": jnp.mean(jnp.square(z_hat - z)), "hard": jnp.mean(jnp.square(z_q - z))}
        loss = self.double * terms["soft"] + attraction(z, z_q, **weights)
        if self.entropy_weight:
            alone, together = entropies(self._sharp_logits, flat, codewords, chunk=self.chunk)
            terms["entropy"] = alone - together
            loss += self.entropy_weight * terms["entropy"]
        return Quantized(indices, z_q, z_hat if train else z_q, loss, terms)

    def fold(self, params: Any, state: Any) -> jax.Array:
        """The codewords, f32[K, D]."""
        return self.codebook.apply({"params": params})

    def encode(self, folded: jax.Array, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        flat = rows(z, folded, self.channels)
        found = assign_softly(self._logits, flat, folded, chunk=self.chunk)
        return found.indices.reshape(z.shape[:-1])

    def _logits(self, z, codewords):
        return self.scale * jnp.matmul(z, codewords.T, precision=jax.lax.Precision.HIGHEST)

    def _sharp_logits(self, z, codewords):
        return self._logits(z, codewords) / self.entropy_temperature
