"""Where the time of a train step goes on a CPU, by groups of its operations, beside a floor."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from mq_jax.bench.program import Program, compiled_step
from mq_jax.bench.step import chosen_kinds
from mq_jax.bench.tables import print_by_row
from mq_jax.bench.thunks import Event, median_step, profiled
from mq_jax.bench.timing import interleaved
from mq_jax.devices.products import copy_rate, matmul_rate
from mq_jax.planning.hlo import parse
from mq_jax.planning.work import GROUPS, NAMELESS, Work, floor_seconds, works

# Profiled ones, of which the median counts.
_STEPS = 5
_COLUMNS = ("group", "ops", "ms", "share", "GFLOP", "MiB", "floor ms", "of floor")
# Of an operation that the program's text does not have.
_UNKNOWN = Work(NAMELESS, 0, 0, frozenset())


class Rates(NamedTuple):
    """What this machine does at most: FLOP/s of a product, bytes/s of a copy."""

    flops: float
    bytes: float


def bench_operations(
    config: ConfigDict, rounds: int, straight_through: str, kinds: Sequence[str] = ()
) -> None:
    """Tells for each kind of train step which operations its time goes to.

    A group is told by JAX's names of scopes and modules, which XLA keeps of what it fuses into one
    operation for its last; what has products or convolutions inside is a group of its own. The
    columns:
      ops: that run in a step, those of loops at each turn.
      ms, share: of the profiled step, the median one; on several cores operations overlap.
      GFLOP: of products, convolutions and elementwise arithmetic.
      MiB: read and written, operands whole, also where an operation takes a part.
      floor ms: of each operation the longer of its FLOPs at the rate of a large matrix product
        and its bytes at that of a large copy. A cache can be faster than the latter.
      of floor: ms over it.

    Args:
      config: validated; its nets, codebook and batch size are taken.
      rounds: of the steps that are timed without the profiler; medians count.
      straight_through: of the steps; `all` for the configuration's own.
      kinds: hyper-gradients; none for the configuration's own.
    """
    rates = Rates(matmul_rate(config.model.dtype) * 1e9, copy_rate() * 1e9)
    for kind, estimator in chosen_steps(config, straight_through, kinds):
        with _own_names():
            program = compiled_step(config, kind, estimator)
        plain = interleaved({kind: program.run}, rounds)[kind]
        measured = _measured(program)
        seconds = sum(event.seconds for event, _ in measured)
        print_by_row(
            f"Operations of the step {kind}, {estimator}: {plain * 1e3:.1f} ms without the "
            f"profiler, median of {rounds}; their times add up to {seconds * 1e3:.1f} ms with it. "
            f"Batch {config.train.batch_size}, K {config.codebook.size}; a {config.model.dtype} "
            f"matrix product runs at {rates.flops / 1e9:.0f} GFLOP/s, a copy from memory to memory "
            f"at {rates.bytes / 1e9:.1f} GB/s, which what a cache holds can exceed",
            _COLUMNS,
            rows(measured, rates),
        )


def chosen_steps(
    config: ConfigDict, straight_through: str, kinds: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """The steps that are profiled.

    Args:
      config: validated.
      straight_through: of the steps; `all` for the configuration's own.
      kinds: hyper-gradients; none for the configuration's own.

    Returns:
      (hypergradient, straight_through) of each.

    Raises:
      ValueError: training does not take one of them.
    """
    estimator = config.train.straight_through if straight_through == "all" else straight_through
    wanted = kinds or (config.train.hypergradient,)
    return [step for step in chosen_kinds(config, estimator, wanted) if step[0] in wanted]


def require_cpu() -> None:
    """Raises where a profile has other names.

    Raises:
      ValueError: JAX computes on something else than a CPU.
    """
    if (backend := jax.default_backend()) != "cpu":
        raise ValueError(
            f"--part=operations reads the profile of a CPU, and JAX computes on {backend!r} here; "
            "use --part=step there, or set JAX_PLATFORMS=cpu."
        )


def rows(measured: Sequence[tuple[Event, Work]], rates: Rates) -> list[list[str]]:
    """The cells of a table: a row for each group that occurs, and their sum.

    Args:
      measured: each operation of a step and its work.
      rates: of this machine.

    Returns:
      Rows.
    """
    whole = sum(event.seconds for event, _ in measured)
    groups = {group: [each for each in measured if each[1].group == group] for group in GROUPS}
    return [
        _row(group, found, whole, rates)
        for group, found in (groups | {"sum": measured}).items()
        if found
    ]


def _row(name, measured, whole, rates):
    seconds = sum(event.seconds for event, _ in measured)
    floor = sum(floor_seconds(work, *rates) for _, work in measured)
    return [
        *(name, f"{len(measured)}", f"{seconds * 1e3:.2f}", f"{seconds / whole:.1%}"),
        f"{sum(work.flops for _, work in measured) / 1e9:.3f}",
        f"{sum(work.bytes for _, work in measured) / 2**20:.1f}",
        *(f"{floor * 1e3:.2f}", f"{seconds / floor:.1f}" if floor else "none"),
    ]


def _measured(program: Program) -> list[tuple[Event, Work]]:
    """Each operation of the median step, and its work."""
    text = program.text()
    work = works(parse(text))
    (name,) = re.findall(r"^HloModule ([\w.\-]+)", text)
    inside = {name: each.inside for name, each in work.items()}
    events = median_step(profiled(program.run, _STEPS), name, inside)
    return [(event, work.get(event.name, _UNKNOWN)) for event in events]


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """Takes no program out of the compilation cache that an earlier source named otherwise."""
    field = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, field)
    jax.config.update(field, True)
    try:
        yield
    finally:
        jax.config.update(field, before)
