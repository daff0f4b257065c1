"""The compiled train step of a run, and the arrays that it is restored to."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.images.scale import from_uint8
from mq_jax.metrics.collections import computed, empty_like, empty_window
from mq_jax.runs.trees import all_finite, lower_copies
from mq_jax.training.build import Built
from mq_jax.training.first import drawn, first_state, init_state
from mq_jax.training.frozen import frozen_shapes


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
        that a loop runs between steps.
    """

    traced: Callable[[], Traced]
    steps: Callable[[], Steps]


class Lowered(NamedTuple):
    """A Program before XLA sees it.

    Attributes:
      target: as checkpoint_target returns it.
      frozen: as target, of the weights that no level trains.
      step: `jax.stages.Lowered` of Steps.step.
      inner_step: likewise, or None.
      names: names of the train step's metrics.
    """

    target: dict[str, Any]
    frozen: Any
    step: jax.stages.Lowered
    inner_step: jax.stages.Lowered | None
    names: tuple[str, ...]


def compile_program(config: ConfigDict, built: Built, mesh: Mesh) -> Program:
    """Begins to trace and to compile the train step.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      A Program.
    """
    return compiled(lambda: lower_program(config, built, mesh))


def compiled(lower: Callable[[], Lowered]) -> Program:
    """Begins to trace and to compile the steps of any stage.

    On a CPU this returns meanwhile: XLA compiles without Python's lock, so that a run is started
    and evaluated beside it. For a GPU, XLA times kernels, which nothing else shall disturb.

    Args:
      lower: traces them.

    Returns:
      A Program.
    """
    began, pool = time.monotonic(), futures.ThreadPoolExecutor()

    def trace():
        lowered = lower()
        # Before the steps, behind which XLA would have it wait.
        traced = Traced(lowered.target, lowered.names, new_window(lowered.target["window"]))
        compiling = [pool.submit(_compiled, s) for s in (lowered.step, lowered.inner_step) if s]
        around = pool.submit(_compile_around_steps, lowered.target)
        pool.shutdown(wait=False)
        return traced, compiling, around

    tracing = pool.submit(trace)

    @functools.cache
    def steps():
        _, compiling, around = tracing.result()
        around.result()
        (step, ended), *rest = [each.result() for each in compiling]
        inner_step = rest[0][0] if rest else None
        flops = _flops(step), _flops(inner_step) if inner_step else 0.0
        return Steps(step, inner_step, *flops, max([ended, *(end for _, end in rest)]) - began)

    if jax.default_backend() != "cpu":
        steps()
    return Program(lambda: tracing.result()[0], steps)


def _compiled(lowered):
    """A compiled step, and when it was ready."""
    return lowered.compile(), time.monotonic()


def _compile_around_steps(target):
    """Compiles what lines of the log and checkpoints take, for which steps would wait else."""
    lower_copies(target).compile()
    all_finite.lower(target["state"].learned).compile()
    computed.lower(target["window"]).compile()


def _flops(step):
    """Of a compiled step, as XLA counts them; not a number where it does not."""
    return (step.cost_analysis() or {}).get("flops", float("nan"))


def lower_program(config: ConfigDict, built: Built, mesh: Mesh) -> Lowered:
    """Traces the train step, donations and shardings included.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      A Lowered.
    """
    target = checkpoint_target(config, built, mesh)
    shapes = _step_metrics(config, built, mesh, target["state"])
    images = _batch(config, jnp.uint8, sharding.split(mesh))
    frozen = sharding.whole(frozen_shapes(config), mesh)

    def lower(train_step, inner_images):
        def step(state, frozen, inner_images, outer_images):
            batches = jax.tree.map(from_uint8, (inner_images, outer_images))
            return traced_once(train_step)(state, *batches, frozen)

        given = frozen, inner_images, images
        return lower_step(step, target, given, shapes, "inner/loss", mesh)

    inner_step = built.inner_step and lower(built.inner_step, images)
    step = lower(built.train_step, _of_a_step(config, images))
    return Lowered(target, frozen, step, inner_step, tuple(sorted(shapes)))


def lower_step(
    train_step: Callable,
    target: Mapping[str, Any],
    given: Sequence[Any],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    loss: str,
    mesh: Mesh,
) -> jax.stages.Lowered:
    """Traces a step of any stage together with the window that its metrics are merged into.

    Args:
      train_step: (state, *given) -> (state, metrics).
      target: {"state": ..., "window": ...} with shardings.
      given: the rest of what a step takes, with shardings.
      shapes: of the metrics, by name; a step may lack some.
      loss: name of that which is returned.
      mesh: from sharding.make_mesh.

    Returns:
      Of (state, window, *given) -> (state, window, loss), which donates the first two.
    """
    window, everywhere = type(target["window"]), sharding.replicated(mesh)

    def step(state, window_so_far, *given):
        state, metrics = train_step(state, *given)
        # An inner step has no outer metrics: zeros, with a weight of zero.
        absent = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
        update = window.single_from_model_output(step=state.step, **(absent | metrics))
        return state, window_so_far.merge(update), metrics[loss]

    places = jax.tree.map(lambda leaf: leaf.sharding, target["state"]), everywhere, everywhere
    # Donated: the old state is dead after this call and holds twice the parameters. Whole: what a
    # step replaces without reading it, as most of a Past, would be dropped and be made anew.
    jitted = jax.jit(step, donate_argnums=(0, 1), keep_unused=True, out_shardings=places)
    return jitted.lower(target["state"], target["window"], *given)


def checkpoint_target(config: ConfigDict, built: Built, mesh: Mesh) -> dict[str, Any]:
    """What a checkpoint holds, as shapes, dtypes and shardings; computes nothing.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      {"state": TrainState, "window": collection}, with ShapeDtypeStructs for leaves.
    """

    def carried():
        state = init_state(built, config)
        return {"state": state, "window": empty_window(_step_metrics(config, built, mesh, state))}

    return sharding.placed(jax.eval_shape(carried), mesh, config.mesh.shard_from)


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


def traced_once(train_step: Callable) -> Callable:
    """A step that JAX traces once for the shapes of its metrics and for its program.

    Args:
      train_step: of any stage.

    Returns:
      The same, within whatever calls it.
    """
    return jax.jit(train_step, inline=True)


def _step_metrics(config, built, mesh, state):
    """Shapes and dtypes of the train step's metrics, by name."""
    # Placed as in lower_program, without which JAX would trace the step for each of both.
    images = _batch(config, jnp.float32, sharding.split(mesh))
    state = sharding.placed(state, mesh, config.mesh.shard_from)
    given = _of_a_step(config, images), images, sharding.whole(frozen_shapes(config), mesh)
    return jax.eval_shape(traced_once(built.train_step), state, *given)[1]


def _of_a_step(config, images):
    """The inner batches of a step of both levels, one or several."""
    return (images,) * config.train.unroll if config.train.unroll > 1 else images


def _batch(config, dtype, placement):
    size = config.data.image_size
    shape = (config.train.batch_size, size, size, 3)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=placement)
