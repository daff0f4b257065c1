"""The compiled train step of a run, and the arrays that it starts from."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices.cache import WRITTEN, cache_events
from mq_jax.metrics.collections import computed, empty_like
from mq_jax.runs.trees import all_finite, lower_copies
from mq_jax.training import kept
from mq_jax.training.build import Built
from mq_jax.training.first import drawn, first_state, init_state
from mq_jax.training.lowering import (
    Lowered,
    checkpoint_target,
    given_to_steps,
    kept_program,
    lower_program,
)


class Steps(NamedTuple):
    """The compiled steps of a run.

    Attributes:
      step: (state, window, frozen, *batches) -> (state, window, loss), compiled; the state and the
        window are donated. Batches of the first stage are inner u8[B, H, W, 3] and outer u8[B, H,
        W, 3]; with train.unroll above 1, inner is a tuple of so many.
      inner_step: the same without the outer level; None where every step has one.
      flops: of `step` on one device, as XLA counts them.
      inner_flops: of `inner_step`; 0 where there is none.
      compile_seconds: from the trace to the compiled steps.
    """

    step: Callable
    inner_step: Callable | None
    flops: float
    inner_flops: float
    compile_seconds: float


class Traced(NamedTuple):
    """What is known of the steps of a run before they are compiled.

    Attributes:
      target: as checkpoint_target returns it.
      names: names of the train step's metrics.
      new_window: -> the window of no step, on the devices.
    """

    target: dict[str, Any]
    names: tuple[str, ...]
    new_window: Callable[[], Any]


class Program(NamedTuple):
    """What the training loop runs.

    Attributes:
      traced: -> Traced, the same at each call; waits until the steps are traced.
      steps: -> Steps, the same at each call; waits until they are compiled, and with them all else
        that a loop runs between steps, unless an earlier start kept the steps.
    """

    traced: Callable[[], Traced]
    steps: Callable[[], Steps]


def compile_program(
    config: ConfigDict, built: Built, mesh: Mesh, place: kept.Place | None = None
) -> Program:
    """Begins to trace and to compile the train step, or to load what an earlier start kept.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.
      place: from kept.place_of; None: nothing is kept.

    Returns:
      A Program.
    """
    return compiled_or_kept(
        lambda: lower_program(config, built, mesh),
        lambda: init_state(built, config),
        lambda: given_to_steps(config, built, mesh),
        mesh,
        config.mesh.shard_from,
        place,
    )


def compiled_or_kept(
    lower: Callable[[], Lowered],
    make_state: Callable[[], Any],
    given: Callable[[], Sequence[Sequence[Any]]],
    mesh: Mesh,
    shard_from: int,
    place: kept.Place | None,
) -> Program:
    """Begins to trace and to compile the steps of any stage, or to load what is kept of them.

    Args:
      lower: as compiled's.
      make_state: as lowering.kept_program's.
      given: -> likewise.
      mesh: likewise.
      shard_from: likewise.
      place: likewise; None: nothing is kept.

    Returns:
      A Program.
    """
    if place is None:
        return compiled(lower)

    def found():
        return kept_program(place, make_state, given(), mesh, shard_from, lower) or lower()

    return compiled(found, functools.partial(kept.keep, place))


def compiled(
    lower: Callable[[], Lowered],
    keep: Callable[[Mapping[str, jax.ShapeDtypeStruct], list[kept.Step]], None] | None = None,
) -> Program:
    """Begins to trace and to compile the steps of any stage.

    On a CPU this returns meanwhile: XLA compiles without Python's lock, so that a run is started
    and evaluated beside it. For a GPU, XLA times kernels, which nothing else shall disturb.

    Args:
      lower: traces them.
      keep: called beside the run with the metrics of a step and the steps, unless an earlier start
        kept them.

    Returns:
      A Program.
    """
    began, pool = time.monotonic(), futures.ThreadPoolExecutor()

    def trace():
        lowered = lower()
        # Before the steps, behind which XLA would have it wait.
        window = new_window(lowered.target["window"])
        traced = Traced(lowered.target, tuple(sorted(lowered.metrics)), window)
        compiling = [pool.submit(_compiled, s) for s in (lowered.step, lowered.inner_step) if s]
        beside = []
        if not lowered.is_kept:
            # Else JAX's cache has these, too, and a line waits less for them than for a trace.
            beside.append(pool.submit(_compile_around_steps, lowered.target))
            if keep is not None:
                pool.submit(lambda: keep(lowered.metrics, [each.result()[0] for each in compiling]))
        pool.shutdown(wait=False)
        return traced, compiling, beside

    tracing = pool.submit(trace)

    @functools.cache
    def steps():
        _, compiling, beside = tracing.result()
        for each in beside:
            each.result()
        (step, ended), *rest = [each.result() for each in compiling]
        step, inner_step = step.compiled, rest[0][0].compiled if rest else None
        flops = _flops(step), _flops(inner_step) if inner_step else 0.0
        return Steps(step, inner_step, *flops, max([ended, *(end for _, end in rest)]) - began)

    if jax.default_backend() != "cpu":
        steps()
    return Program(lambda: tracing.result()[0], steps)


def _compiled(lowered):
    """A kept.Step, and when it was ready."""
    with cache_events() as told:
        step = lowered.compile()
    return kept.Step(lowered, step, WRITTEN in told), time.monotonic()


def _compile_around_steps(target):
    """Compiles what lines of the log and checkpoints take, for which steps would wait else."""
    lower_copies(target).compile()
    all_finite.lower(target["state"].learned).compile()
    computed.lower(target["window"]).compile()


def _flops(step):
    """Of a compiled step, as XLA counts them; not a number where it does not."""
    return (step.cost_analysis() or {}).get("flops", float("nan"))


def start(config: ConfigDict, built: Built, mesh: Mesh) -> dict[str, Any]:
    """The arrays before the first step, as the seed has them.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      {"state": TrainState at step 0, "window": metrics of no step}, as checkpoint_target's.
    """
    window = checkpoint_target(config, built, mesh)["window"]
    state = first_state(config, built, mesh, drawn(config, built))
    return {"state": state, "window": new_window(window)()}


def new_window(described: Any) -> Callable[[], Any]:
    """What makes the window that no step has been merged into.

    Args:
      described: the window of a checkpoint_target.

    Returns:
      -> arrays as described, by one compiled program.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding, described)
    return jax.jit(lambda: empty_like(described), out_shardings=places).lower().compile()
