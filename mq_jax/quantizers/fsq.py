"""Finite scalar quantization: every channel is rounded to a few levels; there is no codebook."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mq_jax.quantizers.families import Arithmetic
from mq_jax.quantizers.quantizer import Quantized, check_channels
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class FSQ(Arithmetic):
    """Channels bounded by a tanh and rounded (Mentzer et al., 2024); K is the product of levels.

    b(z) = h tanh(z + s) - o, with h = (L - 1)(1 - margin) / 2, o = 1/2 for an even L, else 0, and
    s = tan(o / h), or 0 for two levels, where o > h. A code's value is round(b) / floor(L / 2),
    its index the digits round(b) + floor(L / 2) with the first channel as the lowest. No loss,
    no parameters; z gets g b'(z) / floor(L / 2).

    Attributes:
      levels: L of each channel, in [2, 1000].
      margin: the share by which the bound stays within the outermost levels; some ports have it
        past them, -1e-3.
      noise: of the estimator `diveq`.
    """

    levels: tuple[int, ...]
    margin: float = 1e-3
    noise: float = 0.0

    def __post_init__(self):
        # Past a thousand levels the margin would keep the outermost from being rounded to.
        if not self.levels or not all(2 <= level <= 1000 for level in self.levels):
            raise ValueError(f"FSQ has levels {self.levels}; expected each in [2, 1000].")
        if self.size >= 2**31:
            raise ValueError(
                f"FSQ of levels {self.levels} has {self.size} codes; expected fewer than 2**31, "
                "which an index holds: take groups of it."
            )

    @property
    def size(self) -> int:
        """K."""
        return math.prod(self.levels)

    @property
    def dim(self) -> int:
        """D, a channel for each entry of levels."""
        return len(self.levels)

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
        """As Quantizer's; the estimator is of the rounding alone, the bound has its own slope."""
        bounded = self._bounded(z)
        indices = self._indices(bounded)
        z_q = z_hat = self.decode((), indices)
        if train:
            z_hat = apply_straight_through(
                bounded / self._halves, z_q, kind=straight_through, noise=self.noise, rng=rng
            )
        return Quantized(indices, z_q, z_hat, jnp.zeros((), z_q.dtype), {})

    def encode(self, folded: tuple, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return self._indices(self._bounded(z))

    def decode(self, folded: tuple, indices: jax.Array) -> jax.Array:
        """As Quantizer's; f32[..., D] in [-1, 1]."""
        digits = indices[..., None] // self._places % np.array(self.levels, np.int32)
        # By the reciprocal: a product rounds once, alike in every program.
        return (digits - self._halves) * jnp.asarray(1 / self._halves)

    @property
    def _halves(self):
        return np.array(self.levels, np.int32) // 2

    @property
    def _places(self):
        """What a step of each digit adds to the index."""
        return np.cumprod((1, *self.levels[:-1])).astype(np.int32)

    def _bounded(self, z):
        """b(z), in float32 or wider: bfloat16 would round to the wrong level near a half."""
        check_channels(z, self.channels)
        levels = np.array(self.levels)
        reach = (levels - 1) * (1 - self.margin) / 2
        offset = np.where(levels % 2, 0.0, 0.5)
        # Two levels lie at -1 and 0, with nothing between them to be moved to zero.
        shift = np.where(offset < reach, np.tan(offset / reach), 0.0)
        z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
        reach, offset, shift = (jnp.asarray(x, z.dtype) for x in (reach, offset, shift))
        return reach * jnp.tanh(z + shift) - offset

    def _indices(self, bounded):
        digits = jnp.round(bounded).astype(jnp.int32) + self._halves
        return jnp.sum(digits * self._places, axis=-1, dtype=jnp.int32)
