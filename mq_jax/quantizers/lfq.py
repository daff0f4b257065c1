"""Lookup-free quantization: a code is the signs of the channels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.bits import batch_entropy, pack_bits, token_entropy, unpack_bits
from mq_jax.quantizers.families import Arithmetic
from mq_jax.quantizers.quantizer import Quantized, check_channels
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class LFQ(Arithmetic):
    """z_q = sign(z), K = 2^L (Yu et al., 2024, MAGVIT-v2); zero counts as negative.

    Loss: commitment mean((z - z_q)^2) + token_entropy H_t - batch_entropy H_b, with H_t the mean
    entropy of p(c | z) = softmax(2 z.c / temperature) over all codes and H_b that of its mean.

    Attributes:
      bits: L, at most 30; the first channel is the lowest bit of an index.
      commitment: weight of the pull of z to its code.
      token_entropy: weight of H_t, which makes tokens decided.
      batch_entropy: weight of H_b, which makes codes used.
      temperature: of the softmax.
      group: bits over which H_b is exact; of more bits it is a sum over groups of them.
      noise: of the estimator `diveq`.
    """

    bits: int
    commitment: float = 0.25
    token_entropy: float = 0.1
    batch_entropy: float = 0.1
    temperature: float = 0.01
    group: int = 18
    noise: float = 0.0

    def __post_init__(self):
        kind = type(self).__name__
        if not 1 <= self.bits <= 30:
            raise ValueError(
                f"{kind} has {self.bits} bits; expected 1 to 30, which an index holds: for more, "
                "take groups of it."
            )
        if not 1 <= self.group <= 24:
            raise ValueError(
                f"{kind} has groups of {self.group} bits; expected 1 to 24, of which the "
                "distribution over codes fits in memory."
            )

    @property
    def size(self) -> int:
        """K."""
        return 2**self.bits

    @property
    def dim(self) -> int:
        """D = L."""
        return self.bits

    channels = dim

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
        indices = self.encode((), z)
        z = self._placed(z.astype(jnp.promote_types(z.dtype, jnp.float32)))
        z_q = z_hat = self.decode((), indices).astype(z.dtype)
        # Log-odds of a bit: its two logits, 2 z.c / temperature, differ by twice z's part.
        logits = 4 * self._scale / self.temperature * z
        terms = {
            "commitment": jnp.mean(jnp.square(z - z_q)),
            "token_entropy": token_entropy(logits),
            "batch_entropy": batch_entropy(logits, self.group),
        }
        loss = (
            self.commitment * terms["commitment"]
            + self.token_entropy * terms["token_entropy"]
            - self.batch_entropy * terms["batch_entropy"]
        )
        if train:
            z_hat = apply_straight_through(
                self._scale * z, z_q, kind=straight_through, noise=self.noise, rng=rng
            )
        return Quantized(indices, z_q, z_hat, loss, terms)

    def encode(self, folded: tuple, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        check_channels(z, self.channels)
        return pack_bits(z > 0)

    def decode(self, folded: tuple, indices: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return jnp.where(unpack_bits(indices, self.bits), self._scale, -self._scale)

    @property
    def _scale(self):
        """What a code's channels are, but for the sign."""
        return 1.0

    def _placed(self, z):
        """z where it is compared with codes."""
        return z
