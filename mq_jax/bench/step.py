"""Train steps beside one another."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from mq_jax.bench.timing import interleaved, matmul_rate
from mq_jax.terminal import console
from mq_jax.training.build import build, init_state
from mq_jax.training.frozen import load_frozen
from mq_jax.training.quantizing import UNTRAINED

_KINDS = (
    ("joint", "encoder"),
    ("joint", "encoder-and-codewords"),
    ("none", "encoder"),
    ("pipelined", "encoder"),
    ("unrolled", "encoder"),
    ("unrolled-reverse", "encoder"),
    ("finite-difference", "encoder"),
    ("identity", "encoder"),
    ("sama", "encoder"),
    ("neumann", "encoder"),
    ("cg", "encoder"),
    ("unrolled", "encoder-and-codewords"),
    ("unrolled-reverse", "encoder-and-codewords"),
    ("pipelined", "encoder-and-codewords"),
    ("unrolled", "encoder-and-codewords-inside"),
)


class Program(NamedTuple):
    """A compiled train step.

    Attributes:
      run: a function that runs one step to its end.
      flops: as XLA counts them.
      compile_seconds: from its trace to its end.
      temporary: bytes beside arguments and results.
    """

    run: Callable[[], Any]
    flops: float
    compile_seconds: float
    temporary: int


def bench_step(config: ConfigDict, rounds: int, straight_through: str) -> None:
    """Times every kind of train step over the joint one.

    Args:
      config: validated; its nets, codebook and batch size are taken.
      rounds: interleaved; medians count.
      straight_through: of the steps; `all` for every one.
    """
    chosen = chosen_kinds(config.quantizer.kind, straight_through)
    programs = {kinds: compiled_step(config, *kinds) for kinds in chosen}
    timings = interleaved({kinds: program.run for kinds, program in programs.items()}, rounds)
    base, base_flops = timings[chosen[0]], programs[chosen[0]].flops
    peak = matmul_rate()
    rows = []
    for kinds, program in programs.items():
        seconds, flops = timings[kinds], program.flops
        rate = flops / seconds / 1e9
        rows.append(
            [
                f"{kinds[0]}, {kinds[1]}",
                *(f"{flops / 1e9:.2f}", f"{flops / base_flops:.2f}"),
                *(f"{seconds * 1e3:.0f}", f"{seconds / base:.2f}"),
                *(f"{rate:.0f}", f"{rate / peak:.0%}"),
                *(f"{program.temporary / 2**20:.0f}", f"{program.compile_seconds:.0f}"),
            ]
        )
    console.print_table(
        f"Train steps, batch {config.train.batch_size}, K {config.codebook.size}, medians of "
        f"{rounds}; a matrix product runs at {peak:.0f} GFLOP/s",
        [
            *("step, straight-through", "GFLOP", "/joint", "ms", "/joint"),
            *("GFLOP/s", "of product", "MiB", "compile s"),
        ],
        rows,
    )


def chosen_kinds(quantizer: str, straight_through: str) -> list[tuple[str, str]]:
    """The steps that are timed, the joint one first.

    Args:
      quantizer: its kind; one without parameters has no second level.
      straight_through: of the steps; `all` for every one.

    Returns:
      (hypergradient, straight_through) of each.
    """
    return [
        kinds
        for kinds in _KINDS
        if straight_through in ("all", kinds[1])
        and (kinds[0] == "joint" or quantizer not in UNTRAINED)
    ]


def compiled_step(
    config: ConfigDict,
    kind: str,
    straight_through: str,
    *,
    unroll: int = 1,
    roll_back: bool = False,
) -> Program:
    """A train step of both levels, ready to run.

    Args:
      config: validated.
      kind: as config.train.hypergradient.
      straight_through: as config.train.straight_through.
      unroll: as config.train.unroll; the inner updates of the step are so many.
      roll_back: as config.train.roll_back.

    Returns:
      A Program.
    """
    config = ConfigDict(config.to_dict())
    config.train.update(hypergradient=kind, straight_through=straight_through)
    config.train.update(inner_updates=unroll, unroll=unroll, roll_back=roll_back)
    built = build(config, steps=1000)
    state = init_state(built, config)
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, 3)
    images = jax.random.uniform(jax.random.key(1), shape, minval=-1, maxval=1)
    inner = (images,) * unroll if unroll > 1 else images
    arguments = state, inner, images, jax.device_put(load_frozen(config))
    started = time.perf_counter()
    compiled = jax.jit(built.train_step).lower(*arguments).compile()
    return Program(
        lambda: jax.block_until_ready(compiled(*arguments)),
        compiled.cost_analysis()["flops"],
        time.perf_counter() - started,
        compiled.memory_analysis().temp_size_in_bytes,
    )
