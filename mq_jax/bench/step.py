"""Train steps beside one another."""

import functools
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from mq_jax.bench.program import compiled_step, variant
from mq_jax.bench.tables import print_comparison
from mq_jax.devices.peaks import peak_of
from mq_jax.devices.products import matmul_rate
from mq_jax.training.validate import validate

# What `all` times: every hyper-gradient with one estimator, and those whose cost another changes.
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
HYPERGRADIENTS = tuple(dict.fromkeys(kind for kind, _ in _KINDS))

_COLUMNS = (
    *("step, straight-through", "GFLOP", "/joint", "ms", "/joint", "GFLOP/s", "of product"),
    *("MFU", "HFU", "MiB", "/joint", "compile s"),
)


def bench_step(
    config: ConfigDict, rounds: int, straight_through: str, kinds: Sequence[str] = ()
) -> None:
    """Times every kind of train step over the joint one, and how much of the device it uses.

    The columns, each `/joint` over the first row's of the column before it:
      GFLOP: of the compiled program as XLA counts them, elementwise ones too, bodies of loops once.
      ms: of a step, fed with the state that the last one left.
      GFLOP/s: the former over the latter.
      of product: that over the rate of a large matrix product here, of the net's dtype.
      MFU: model FLOP utilisation: convolutions and products that the step asks for, without
        recomputation and with plain convolutions, over time and the device's peak.
      HFU: likewise of those that the program computes: recomputed ones too, and on a CPU
        Winograd's fewer ones.
      MiB: that the program takes at once, its state and batches too.
      compile s: from its trace; "cached" where the program came out of the compilation cache.

    Args:
      config: validated; its nets, codebook and batch size are taken.
      rounds: interleaved; medians count.
      straight_through: of the steps; `all` for every one.
      kinds: hyper-gradients beside the joint step; none for all.
    """
    dtype = config.model.dtype
    product = matmul_rate(dtype)
    roof = peak_rate(dtype, product)

    def row(name, programs, seconds):
        program, own = programs[name], seconds[name]
        first = next(iter(programs))
        base, rate = programs[first], program.flops / own / 1e9
        return [
            *(name, f"{program.flops / 1e9:.2f}", f"{program.flops / base.flops:.2f}"),
            *(f"{own * 1e3:.{1 if own < 0.01 else 0}f}", f"{own / seconds[first]:.2f}"),
            *(f"{rate:.0f}", f"{rate / product:.0%}"),
            *(_share(each / own, roof) for each in (program.model_flops, program.executed_flops)),
            *(f"{program.memory / 2**20:.0f}", f"{program.memory / base.memory:.2f}"),
            f"{program.compile_seconds:.0f}{' cached' if program.cached else ''}",
        ]

    print_comparison(
        f"Train steps, batch {config.train.batch_size}, K {config.codebook.size}; a {dtype} matrix "
        f"product runs at {product:.0f} GFLOP/s, {_roof_in_words(dtype, roof)}",
        _COLUMNS,
        {
            ", ".join(step): functools.partial(compiled_step, config, *step)
            for step in chosen_kinds(config, straight_through, kinds)
        },
        row,
        rounds,
    )


def peak_rate(dtype: str, product: float) -> float | None:
    """GFLOP/s that the device reaches at most, over which MFU and HFU are told.

    Args:
      dtype: of the net.
      product: the rate of a matrix product of this dtype.

    Returns:
      Of an accelerator its maker's figure, None where the table has none; of a CPU the product's.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return product
    peak = peak_of(device)
    return peak and peak.of(dtype) * 1e3


def _share(flops_a_second, roof):
    """A utilisation, in words."""
    return f"{flops_a_second / 1e9 / roof:.1%}" if roof else "unknown"


def _roof_in_words(dtype, roof):
    """What MFU and HFU are over."""
    kind = jax.devices()[0].device_kind
    known = "not known" if roof is None else f"{roof:,.0f} GFLOP/s"
    return f"MFU and HFU: convolutions and products over the {dtype} peak of {kind}, {known}"


def chosen_kinds(
    config: ConfigDict, straight_through: str, kinds: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """The steps that are timed, the joint one first: those that training takes.

    Args:
      config: validated.
      straight_through: of the steps; `all` for every one.
      kinds: hyper-gradients beside the joint step; none for all.

    Returns:
      (hypergradient, straight_through) of each; the joint step with `encoder` where it has no
      such estimator.

    Raises:
      ValueError: one of the named kinds is none that training takes.
    """
    every = _KINDS
    if straight_through != "all":
        every = [(kind, straight_through) for kind in HYPERGRADIENTS]
    wanted = [step for step in every if not kinds or step[0] in ("joint", *kinds)]
    refusals = {step: _refusal(config, *step) for step in wanted}
    taken = [step for step in wanted if not refusals[step]]
    for kind in kinds:
        if kind not in ("joint", *(own for own, _ in taken)):
            reason = next(refusals[step] for step in wanted if step[0] == kind)
            raise ValueError(f"--kinds names {kind!r}, which training does not take: {reason}")
    if not taken or taken[0][0] != "joint":
        taken.insert(0, ("joint", "encoder"))
    return taken


def _refusal(config, kind, straight_through):
    """Why training does not take a step; empty where it does."""
    try:
        validate(variant(config, kind, straight_through))
    except ValueError as error:
        return str(error)
    return ""
