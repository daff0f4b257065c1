"""Product quantization: slices of the channels, each with a quantizer of its own."""

import dataclasses

import jax
import jax.numpy as jnp

from mq_jax.quantizers.composite import (
    advance_each,
    init_each,
    join_codes,
    keys_of,
    part_codes,
)
from mq_jax.quantizers.quantizer import Advanced, Quantized, Quantizer, check_channels


@dataclasses.dataclass(frozen=True)
class Groups:
    """G quantizers of one kind side by side on equal slices of the channels: K^G combinations.

    Losses and terms are means over groups, so that a mean over channels stays one. An estimator
    acts in each group by itself.

    Attributes:
      inner: the quantizer of a slice.
      groups: G. Codes lie on one axis, those of the first channels first.
    """

    inner: Quantizer
    groups: int

    def __post_init__(self):
        if self.groups < 1:
            raise ValueError(f"Groups has {self.groups} groups; expected at least 1.")

    @property
    def size(self) -> int:
        """K of a group."""
        return self.inner.size

    @property
    def depth(self) -> int:
        """G, times the codes of a group where it has several."""
        return self.groups * max(self.inner.depth, 1)

    @property
    def channels(self) -> int:
        """Of all slices."""
        return self.groups * self.inner.channels

    @property
    def dim(self) -> int:
        """D of all slices."""
        return self.groups * self.inner.dim

    def init(self, rng: jax.Array) -> tuple[tuple, tuple]:
        """Of each group, a tuple."""
        return init_each(self.inner, self.groups, rng)

    def __call__(
        self,
        params: tuple,
        state: tuple,
        z: jax.Array,
        *,
        straight_through: str,
        train: bool,
        rng: jax.Array | None = None,
    ) -> Quantized:
        """As Quantizer's."""
        keys = keys_of(rng, self.groups)
        found = [
            self.inner(*each, straight_through=straight_through, train=train, rng=key)
            for *each, key in zip(params, state, self._slices(z), keys, strict=True)
        ]
        return Quantized(
            join_codes([q.indices for q in found], self.inner.depth),
            jnp.concatenate([q.z_q for q in found], axis=-1),
            jnp.concatenate([q.z_hat for q in found], axis=-1),
            sum(q.loss for q in found) / self.groups,
            jax.tree.map(lambda *each: sum(each) / self.groups, *[q.terms for q in found]),
            tuple(q.statistics for q in found),
        )

    def advance(self, params: tuple, state: tuple, statistics: tuple, rng: jax.Array) -> Advanced:
        """Each group by its statistics."""
        return advance_each(self.inner, params, state, statistics, rng)

    def fold(self, params: tuple, state: tuple) -> tuple:
        """Of each group, a tuple."""
        return tuple(self.inner.fold(*each) for each in zip(params, state, strict=True))

    def encode(self, folded: tuple, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return join_codes(list(map(self.inner.encode, folded, self._slices(z))), self.inner.depth)

    def decode(self, folded: tuple, indices: jax.Array) -> jax.Array:
        """As Quantizer's."""
        indices = part_codes(indices, self.groups, self.inner.depth)
        return jnp.concatenate(list(map(self.inner.decode, folded, indices)), axis=-1)

    def codewords(self, folded: tuple) -> jax.Array:
        """As Quantizer's, f32[codes, D / G]; the channels of a group."""
        return jnp.concatenate(list(map(self.inner.codewords, folded)))

    def _slices(self, z):
        check_channels(z, self.channels)
        return jnp.split(z, self.groups, axis=-1)
