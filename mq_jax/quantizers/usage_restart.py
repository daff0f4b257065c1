"""Codewords that were hardly used become copies of ones that were."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.quantizers.histogram import code_counts


@dataclasses.dataclass(frozen=True)
class UsageRestart:
    """The restart of DiVeQ (Vali et al., 2026), after `every` steps.

    A code used in less than `share` of these steps becomes a code that was used in more, drawn
    in proportion to the steps that used it, plus noise.

    Attributes:
      every: steps between restarts.
      share: of the steps, below which a code counts as idle.
      noise: standard deviation. The published 1e-9 lies under float32's resolution of codewords
        near 1: copy and original part only once the one that is chosen has moved.
    """

    every: int = 100
    share: float = 0.01
    noise: float = 1e-9

    def init(self, size: int, dim: int) -> Any:
        """Steps since the last restart, and how many of them used each code."""
        return {"steps": jnp.zeros((), jnp.int32), "used": jnp.zeros(size, jnp.int32)}

    def observe(
        self, z: jax.Array, codewords: jax.Array, indices: jax.Array, rng: jax.Array
    ) -> jax.Array:
        """How often each code was chosen, i32[K]."""
        return code_counts(indices, len(codewords))

    def advance(
        self, codewords: jax.Array, state: Any, statistics: jax.Array, rng: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array]:
        """As Restart's."""
        steps = state["steps"] + 1
        used = state["used"] + (jnp.sum(statistics, axis=0) > 0)
        due = steps >= self.every
        idle = due & (used < self.share * self.every)
        # Of no code in use there is nothing to copy.
        replaced = idle & jnp.any(~idle)
        codewords = jax.lax.cond(
            due, self._replace, lambda codewords, *_: codewords, codewords, used, replaced, rng
        )
        state = {"steps": jnp.where(due, 0, steps), "used": jnp.where(due, 0, used)}
        return codewords, state, replaced

    def _replace(self, codewords, used, replaced, rng):
        donor_key, noise_key = jax.random.split(rng)
        # By the inverse of the distribution function: Gumbel's trick would need K x K draws.
        below = jnp.cumsum(jnp.where(replaced, 0, used))
        draws = jax.random.randint(donor_key, used.shape, 0, jnp.maximum(below[-1], 1))
        donors = jnp.searchsorted(below, draws, side="right")
        noise = self.noise * jax.random.normal(noise_key, codewords.shape, codewords.dtype)
        return jnp.where(replaced[:, None], codewords[donors] + noise, codewords)
