"""Entropy of a soft assignment to codewords, as a term of the loss."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.soft_assignment import entropies


@dataclasses.dataclass(frozen=True)
class Entropy:
    """sure * mean_i H(P_i) - even * H(mean_i P_i), P_i = softmax_k(-||z_i - c_k||^2 / T), in nats.

    As in MaskGIT: each encoding is to be sure of its code, all together are to use every code.
    It moves z and all codewords. The second entropy is of the encodings at hand: over a batch
    cut into parts the term is the mean of the parts', which is not that of the whole.

    Attributes:
      weight: in the loss.
      temperature: T.
      sure: weight of the first entropy.
      even: weight of the second.
      chunk: codewords compared at a time; 0 for all.
    """

    weight: float = 0.1
    temperature: float = 0.01
    sure: float = 1.0
    even: float = 1.0
    chunk: int = 0

    name = "entropy"

    def init(self, size: int, dim: int) -> Any:
        """No state."""
        return ()

    def __call__(self, state: Any, z: jax.Array, codewords: jax.Array) -> jax.Array:
        """As Term's."""
        flat = z.reshape(-1, z.shape[-1]).astype(jnp.result_type(z, codewords))
        alone, together = entropies(self._logits, flat, codewords, chunk=self.chunk)
        return self.sure * alone - self.even * together

    def observe(
        self, z: jax.Array, codewords: jax.Array, indices: jax.Array, rng: jax.Array
    ) -> Any:
        """Nothing."""
        return ()

    def advance(self, state: Any, statistics: Any) -> Any:
        """No state."""
        return state

    def _logits(self, z, codewords):
        """Less ||z||^2 / T, which no probability feels."""
        products = jnp.matmul(z, codewords.T, precision=jax.lax.Precision.HIGHEST)
        return (2 * products - jnp.sum(jnp.square(codewords), axis=-1)) / self.temperature
