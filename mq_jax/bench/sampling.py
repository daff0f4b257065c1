"""Sampling of a decoder: with a cache, and by a whole pass for every token."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.bench.tables import print_by_row
from mq_jax.bench.timing import interleaved
from mq_jax.generation.autoregressive import Autoregressive
from mq_jax.generation.decoder import Decoder
from mq_jax.generation.sampling import Sampling, draw_places, folded, image_keys
from mq_jax.generation.sizes import net_of
from mq_jax.generation.space import TokenSpace

BATCH = 2
CODES = 1024
SIDES = (8, 16)


def bench_sampling(rounds: int) -> None:
    """Times the smallest decoder's sampling of square grids, either way.

    Args:
      rounds: interleaved; medians count.
    """
    print_by_row(
        f"Sampling, tiny decoder, batch {BATCH}, K {CODES}, medians of {rounds}",
        ["tokens", "with a cache, ms", "whole passes, ms", "ratio", "tokens/s with a cache"],
        _rows(rounds),
    )


def _rows(rounds):
    """A row for each side."""
    for side in SIDES:
        space = TokenSpace(side, side, 1, CODES)
        prior = Autoregressive(Decoder(space, net_of("tiny")))
        params = jax.jit(prior.init)(jax.random.key(0))
        ways = {"cache": _cached(prior), "whole passes": _uncached(prior)}
        runs = {name: _run(way, params) for name, way in ways.items()}
        seconds = interleaved(runs, rounds)
        rate = BATCH * space.places / seconds["cache"]
        ratio = seconds["whole passes"] / seconds["cache"]
        milliseconds = [f"{seconds[name] * 1e3:,.0f}" for name in ways]
        yield [f"{space.places}", *milliseconds, f"{ratio:.1f}", f"{rate:,.0f}"]


def _run(way: Callable, params: Any) -> Callable:
    compiled = jax.jit(way).lower(params, jax.random.key(0)).compile()
    return lambda: compiled(params, jax.random.key(0))


def _cached(prior: Autoregressive) -> Callable:
    return lambda params, rng: prior.sample(params, jnp.arange(BATCH), None, rng, Sampling())


def _uncached(prior: Autoregressive) -> Callable:
    """The same draws, each from a pass over all positions."""

    def sample(params, rng):
        variables, keys = {"params": params}, image_keys(rng, jnp.arange(BATCH))

        def step(tokens, place):
            context = prior.model.apply(variables, tokens, None, method="contexts")
            own = jax.lax.dynamic_slice_in_dim(context, place, 1, axis=1)
            drawn, _ = draw_places(prior.model, variables, own, folded(keys, place), Sampling(), 1)
            return jax.lax.dynamic_update_slice(tokens, drawn, (0, place, 0)), None

        tokens = jnp.zeros((BATCH, prior.space.places, prior.space.levels), jnp.int32)
        return jax.lax.scan(step, tokens, jnp.arange(prior.space.places))[0]

    return sample
