"""Vector quantization whose codewords are running means of the encodings they stand for."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.quantizers.attraction import attraction
from mq_jax.quantizers.families import Tabled
from mq_jax.quantizers.histogram import code_counts
from mq_jax.quantizers.nearest import Lookup, nearest_codeword
from mq_jax.quantizers.quantizer import Advanced, Quantized
from mq_jax.quantizers.straight_through import apply_straight_through


@dataclasses.dataclass(frozen=True)
class EMA(Tabled):
    """Codewords as running means (van den Oord et al., 2017, appendix A.1).

        N_k <- d N_k + (1 - d) n_k,    m_k <- d m_k + (1 - d) sum of the z that chose k
        C_k  = m_k / N~_k,             N~_k = (N_k + eps) / (sum N + K eps) * sum N

    No gradient reaches a codeword, so there are no parameters; the state is N and m, and the
    codewords follow from it, so that no two of the three disagree. N starts at 1, with m = C:
    from 0, every code that the first batch leaves idle would grow by (1 - eps) / eps and be lost.

    A restart sets N_k to a count and m_k to as many times a token of the batch: tokens are drawn
    without return while there are as many as codes.

    Attributes:
      size: K.
      dim: D.
      lookup: nearest_codeword, or one of its kind.
      commitment: weight of mean((z - z_q)^2), which moves z alone.
      decay: d.
      epsilon: eps. A code idle for so long that N_k falls to it drifts to zero.
      restart_below: codes whose N_k falls below it, in tokens a batch, restart; 0 for none.
      restart_count: N_k of a code that restarts.
      base: what the codewords start from: N(0, 1), or one of bases.py.
    """

    size: int
    dim: int
    lookup: Lookup = nearest_codeword
    commitment: float = 0.25
    decay: float = 0.99
    epsilon: float = 1e-5
    restart_below: float = 0.0
    restart_count: float = 1.0
    base: Callable = nn.initializers.normal(1.0)

    def __post_init__(self):
        if not 0 <= self.restart_below <= self.restart_count:
            raise ValueError(
                f"restart_below is {self.restart_below} and restart_count {self.restart_count}; "
                "expected 0 <= restart_below <= restart_count, else a code restarts every step."
            )

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """No parameters; counts of 1, and sums that are the base."""
        sums = self.base(rng, (self.size, self.dim))
        return (), {"counts": jnp.ones(self.size, sums.dtype), "sums": sums}

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
        """As Quantizer's; rng is of the candidates for a restart."""
        codewords = self.fold(params, state)
        indices = self.lookup(z, codewords)
        z_q = codewords[indices]
        loss = attraction(z, z_q, commitment=self.commitment, codebook=0.0)
        if not train:
            return Quantized(indices, z_q, z_q, loss, {})
        z_hat = apply_straight_through(z, z_q, kind=straight_through)
        return Quantized(indices, z_q, z_hat, loss, {}, self._observe(z, indices, rng))

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """One step of the running means, then restarts."""
        merged = {
            name: self.decay * state[name] + (1 - self.decay) * jnp.sum(statistics[name], axis=0)
            for name in ("counts", "sums")
        }
        if not self.restart_below:
            return Advanced(params, merged)
        dead = merged["counts"] < self.restart_below
        parts = len(statistics["candidates"])
        # Parts are equally large: a token of one drawn evenly is drawn evenly from all.
        part = jax.random.randint(rng, (self.size,), 0, parts)
        tokens = statistics["candidates"][part, jnp.arange(self.size)]
        restarted = {
            "counts": jnp.where(dead, self.restart_count, merged["counts"]),
            "sums": jnp.where(dead[:, None], self.restart_count * tokens, merged["sums"]),
        }
        return Advanced(params, restarted)

    def fold(self, params: Any, state: Any) -> jax.Array:
        """The codewords, f32[K, D]."""
        counts = state["counts"]
        total = jnp.sum(counts)
        smooth = (counts + self.epsilon) / (total + self.size * self.epsilon) * total
        return state["sums"] / smooth[:, None]

    def encode(self, folded: jax.Array, z: jax.Array) -> jax.Array:
        """As Quantizer's."""
        return self.lookup(z, folded)

    def _observe(self, z, indices, rng):
        """How often each code was chosen, the sum of what chose it, and a token for each code."""
        # Running means follow the encodings; nothing is learned through them.
        flat = jax.lax.stop_gradient(z.reshape(-1, self.dim))
        dtype = jnp.result_type(flat, jnp.float32)
        nothing = jnp.zeros((self.size, self.dim), dtype)
        statistics = {
            "counts": code_counts(indices, self.size),
            "sums": nothing.at[indices.reshape(-1)].add(flat.astype(dtype)),
        }
        if self.restart_below:
            order = jax.random.permutation(rng, len(flat))
            chosen = order[jnp.arange(self.size) % len(flat)]
            statistics["candidates"] = flat[chosen].astype(dtype)
        return statistics
