"""Train steps beside one another."""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from mq_jax import console
from mq_jax.bench.timing import interleaved, matmul_rate
from mq_jax.build import build, init_state
from mq_jax.perceptual import load_frozen

_KINDS = (
    ("joint", "encoder"),
    ("joint", "encoder-and-codewords"),
    ("none", "encoder"),
    ("unrolled", "encoder"),
    ("unrolled-reverse", "encoder"),
    ("finite-difference", "encoder"),
    ("unrolled", "encoder-and-codewords"),
    ("unrolled-reverse", "encoder-and-codewords"),
    ("unrolled", "encoder-and-codewords-inside"),
)


def bench_step(config: ConfigDict, rounds: int) -> None:
    """Times every kind of train step over the joint one.

    Args:
      config: validated; its nets, codebook and batch size are taken.
      rounds: interleaved; medians count.
    """
    programs = {kinds: compiled_step(config, *kinds) for kinds in _KINDS}
    timings = interleaved({kinds: run for kinds, (run, _) in programs.items()}, rounds)
    base, (_, base_flops) = timings[_KINDS[0]], programs[_KINDS[0]]
    peak = matmul_rate()
    rows = []
    for kinds, (_, flops) in programs.items():
        seconds = timings[kinds]
        rate = flops / seconds / 1e9
        rows.append(
            [
                f"{kinds[0]}, {kinds[1]}",
                *(f"{flops / 1e9:.2f}", f"{flops / base_flops:.2f}"),
                *(f"{seconds * 1e3:.0f}", f"{seconds / base:.2f}"),
                *(f"{rate:.0f}", f"{rate / peak:.0%}"),
            ]
        )
    console.print_table(
        f"Train steps, batch {config.train.batch_size}, K {config.codebook.size}, medians of "
        f"{rounds}; a matrix product runs at {peak:.0f} GFLOP/s",
        ["step, straight-through", "GFLOP", "/joint", "ms", "/joint", "GFLOP/s", "of product"],
        rows,
    )


def compiled_step(
    config: ConfigDict, kind: str, straight_through: str
) -> tuple[Callable[[], Any], float]:
    """A train step as a function of nothing, and its FLOPs.

    Args:
      config: validated.
      kind: as config.train.hypergradient.
      straight_through: as config.train.straight_through.

    Returns:
      (a function that runs one step to its end, FLOPs as XLA counts them).
    """
    config = ConfigDict(config.to_dict())
    config.train.update(hypergradient=kind, straight_through=straight_through)
    built = build(config, steps=1000)
    state = init_state(built, config)
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, 3)
    images = jax.random.uniform(jax.random.key(1), shape, minval=-1, maxval=1)
    arguments = state, images, images, jax.device_put(load_frozen(config).training)
    compiled = jax.jit(built.train_step).lower(*arguments).compile()
    flops = compiled.cost_analysis()["flops"]
    return lambda: jax.block_until_ready(compiled(*arguments)), flops
