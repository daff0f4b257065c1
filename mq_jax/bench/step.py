"""Train steps beside one another."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from mq_jax.bench.timing import interleaved
from mq_jax.devices.peaks import peak_of
from mq_jax.devices.products import matmul_rate
from mq_jax.planning import flops
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
      matrix_flops: of convolutions and products, recomputed ones too, as a plan counts them.
      compile_seconds: from its trace to its end.
      temporary: bytes beside arguments and results.
    """

    run: Callable[[], Any]
    flops: float
    matrix_flops: float
    compile_seconds: float
    temporary: int


def bench_step(
    config: ConfigDict, rounds: int, straight_through: str, kinds: Sequence[str] = ()
) -> None:
    """Times every kind of train step over the joint one, and how much of the device it uses.

    Args:
      config: validated; its nets, codebook and batch size are taken.
      rounds: interleaved; medians count.
      straight_through: of the steps; `all` for every one.
      kinds: hyper-gradients beside the joint step; none for all.
    """
    chosen = [
        step
        for step in chosen_kinds(config.quantizer.kind, straight_through)
        if not kinds or step[0] in ("joint", *kinds)
    ]
    programs = {step: compiled_step(config, *step) for step in chosen}
    timings = interleaved({step: program.run for step, program in programs.items()}, rounds)
    base, base_flops = timings[chosen[0]], programs[chosen[0]].flops
    product, roof = matmul_rate(), peak_rate(config.model.dtype)
    rows = []
    for step, program in programs.items():
        seconds, counted = timings[step], program.flops
        rate, matrix = counted / seconds / 1e9, program.matrix_flops / seconds / 1e9
        rows.append(
            [
                f"{step[0]}, {step[1]}",
                *(f"{counted / 1e9:.2f}", f"{counted / base_flops:.2f}"),
                *(f"{seconds * 1e3:.0f}", f"{seconds / base:.2f}"),
                *(f"{rate:.0f}", f"{rate / product:.0%}"),
                f"{matrix / roof:.1%}" if roof else "unknown",
                *(f"{program.temporary / 2**20:.0f}", f"{program.compile_seconds:.0f}"),
            ]
        )
    console.print_table(
        f"Train steps, batch {config.train.batch_size}, K {config.codebook.size}, medians of "
        f"{rounds}; a matrix product runs at {product:.0f} GFLOP/s, "
        f"{_roof_in_words(config.model.dtype, roof)}",
        [
            *("step, straight-through", "GFLOP", "/joint", "ms", "/joint"),
            *("GFLOP/s", "of product", "MFU", "MiB", "compile s"),
        ],
        rows,
    )


def peak_rate(dtype: str) -> float | None:
    """GFLOP/s that the device reaches at most, over which MFU is told.

    Args:
      dtype: of the net.

    Returns:
      Of an accelerator its maker's figure, None where the table has none; of a CPU the rate of a
      product of this dtype.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return matmul_rate(dtype)
    peak = peak_of(device)
    return peak and peak.of(dtype) * 1e3


def _roof_in_words(dtype, roof):
    """What MFU is over."""
    kind = jax.devices()[0].device_kind
    known = "not known" if roof is None else f"{roof:,.0f} GFLOP/s"
    return f"MFU: convolutions and products over the {dtype} peak of {kind}, {known}"


def kinds_named(text: str) -> list[str]:
    """Hyper-gradients of a command line.

    Args:
      text: names divided by commas.

    Returns:
      The names; none for "".

    Raises:
      ValueError: there is no step of one.
    """
    names, known = text.split(",") if text else [], sorted({kind for kind, _ in _KINDS})
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"--kinds={text} names {strange[0]!r}; expected some of {known}.")
    return names


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
    lowered = jax.jit(built.train_step).lower(*arguments)
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    return Program(
        lambda: jax.block_until_ready(compiled(*arguments)),
        compiled.cost_analysis()["flops"],
        sum(found.matrix for found in flops.of_traced(lowered).values()),
        seconds,
        compiled.memory_analysis().temp_size_in_bytes,
    )
