"""Residual quantization: each level quantizes what the levels before it left over."""

import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.composite import (
    advance_each,
    init_each,
    join_codes,
    keys_of,
    part_codes,
)
from mq_jax.quantizers.quantizer import Advanced, Quantized, Quantizer
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class Residual:
    """z_q = q_1 + ... + q_J, q_j the code of r_j, r_1 = z, r_{j+1} = r_j - q_j (SoundStream).

    For kinds whose codewords lie near z, as those with a codebook: the estimator is of the sum
    (theirs is not used), and the losses add up. A level takes the value of those before it for
    a constant: no level's loss reaches another's codewords, through the hyper-gradient either.

    Attributes:
      inner: the quantizer of a level.
      levels: J. Codes lie on one axis, those of the first level first.
      shared: whether all levels have one codebook; else each its own.
      dropout: probability that a training batch is decoded from its first n levels alone, n
        uniform in 1..J; the others then count neither in the value nor in the loss.
      noise: of the estimator `diveq`.
    """

    inner: Quantizer
    levels: int
    shared: bool = False
    dropout: float = 0.0
    noise: float = 0.0

    def __post_init__(self):
        if self.levels < 1:
            raise ValueError(f"Residual has {self.levels} levels; expected at least 1.")
        if self.inner.channels != self.inner.dim:
            raise ValueError(
                f"Residual quantizes {self.inner.channels} channels to {self.inner.dim}; expected "
                "equal: what is left over is a difference."
            )

    @property
    def size(self) -> int:
        """K of a level."""
        return self.inner.size

    @property
    def depth(self) -> int:
        """J, times the codes of a level where it has several."""
        return self.levels * max(self.inner.depth, 1)

    @property
    def dim(self) -> int:
        """D."""
        return self.inner.dim

    channels = dim

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """Of each level, a tuple; of the one where it is shared."""
        return self.inner.init(rng) if self.shared else init_each(self.inner, self.levels, rng)

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
        *keys, kept_key, noise_key = keys_of(rng, self.levels + 2)
        left, found = z, []
        for its_params, its_state, key in zip(
            self._each(params), self._each(state), keys, strict=True
        ):
            q = self.inner(
                its_params, its_state, left, straight_through=straight_through, train=train, rng=key
            )
            found.append(q)
            # From the value, not from the estimator, whose slope would count z once a level.
            left = left - jax.lax.stop_gradient(q.z_q)
        kept = self._kept(found, kept_key) if train and self.dropout else found
        z_q = z_hat = _total([q.z_q for q in kept])
        if train:
            z_hat = apply_straight_through(
                z, z_q, kind=straight_through, noise=self.noise, rng=noise_key
            )
        return Quantized(
            join_codes([q.indices for q in found], self.inner.depth),
            z_q,
            z_hat,
            _total([q.loss for q in kept]),
            jax.tree.map(lambda *terms: _total(terms), *[q.terms for q in kept]),
            tuple(q.statistics for q in found),
        )

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """Each level by its statistics; what is shared by those of all, as so many more parts."""
        if not self.shared:
            return advance_each(self.inner, params, state, statistics, rng)
        parts = jax.tree.map(lambda *each: jnp.concatenate(each), *statistics)
        return self.inner.advance(params, state, parts, rng)

    def fold(self, params: Any, state: Any) -> Any:
        """Of each level, a tuple; of the one where it is shared."""
        if self.shared:
            return self.inner.fold(params, state)
        return tuple(self.inner.fold(*each) for each in zip(params, state, strict=True))

    def encode(self, folded: Any, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        indices = []
        for each in self._each(folded):
            indices.append(self.inner.encode(each, z))
            z = z - self.inner.decode(each, indices[-1])
        return join_codes(indices, self.inner.depth)

    def decode(self, folded: Any, indices: jax.Array) -> jax.Array:
        """As Quantizer's."""
        indices = part_codes(indices, self.levels, self.inner.depth)
        return _total(map(self.inner.decode, self._each(folded), indices))

    def codewords(self, folded: Any) -> jax.Array:
        """As Quantizer's; what a level adds."""
        return jnp.concatenate(list(map(self.inner.codewords, self._each(folded))))

    def _each(self, tree):
        return (tree,) * self.levels if self.shared else tree

    def _kept(self, found, rng):
        """The levels with what is dropped of them zero."""
        whether, count = jax.random.split(rng)
        drawn = jax.random.randint(count, (), 1, self.levels + 1)
        count = jnp.where(jax.random.bernoulli(whether, self.dropout), drawn, self.levels)

        def weighted(level, q):
            loss, terms, z_q = jax.tree.map(
                lambda array: jnp.where(level < count, array, 0), (q.loss, q.terms, q.z_q)
            )
            return q._replace(loss=loss, terms=terms, z_q=z_q)

        return [weighted(level, q) for level, q in enumerate(found)]


def _total(arrays):
    """Their sum, from the first on: the same roundings wherever it is taken."""
    return functools.reduce(operator.add, arrays)
