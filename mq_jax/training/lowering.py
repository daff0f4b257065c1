"""The train step of a run before XLA sees it, and what is carried from one to the next."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.images.scale import from_uint8
from mq_jax.metrics.collections import empty_window
from mq_jax.training import kept
from mq_jax.training.build import Built
from mq_jax.training.first import init_state
from mq_jax.training.frozen import frozen_shapes


class Lowered(NamedTuple):
    """A Program before XLA sees it.

    Attributes:
      target: as checkpoint_target returns it.
      frozen: as target, of the weights that no level trains.
      step: `jax.stages.Lowered` of Steps.step, or what an earlier start kept of it.
      inner_step: likewise, or None.
      metrics: shapes and dtypes of the train step's metrics, by name.
    """

    target: dict[str, Any]
    frozen: Any
    step: jax.stages.Lowered | kept.KeptStep
    inner_step: jax.stages.Lowered | kept.KeptStep | None
    metrics: Mapping[str, jax.ShapeDtypeStruct]

    @property
    def is_kept(self) -> bool:
        """Whether nothing was traced, since an earlier start kept the steps."""
        return isinstance(self.step, kept.KeptStep)


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
    given = given_to_steps(config, built, mesh)

    def lower(train_step, taken):
        def step(state, frozen, inner_images, outer_images):
            batches = jax.tree.map(from_uint8, (inner_images, outer_images))
            return traced_once(train_step)(state, *batches, frozen)

        return lower_step(step, target, taken, shapes, "inner/loss", mesh)

    inner_step = lower(built.inner_step, given[1]) if built.inner_step else None
    return Lowered(target, given[0][0], lower(built.train_step, given[0]), inner_step, shapes)


def kept_program(
    place: kept.Place,
    make_state: Callable[[], Any],
    given: Sequence[Sequence[Any]],
    mesh: Mesh,
    shard_from: int,
    lower: Callable[[], Lowered],
) -> Lowered | None:
    """The steps of any stage where an earlier start kept them, without their trace.

    Args:
      place: from kept.place_of.
      make_state: as carried's.
      given: for each step, that of both levels first, what lower_step is given.
      mesh: from sharding.make_mesh.
      shard_from: as sharding.shardings has it.
      lower: traces the same steps, for what cannot be loaded.

    Returns:
      A Lowered; None where nothing is kept.
    """
    found = kept.read(place)
    if found is None:
        return None
    shapes, payloads = found
    target, traced = carried(make_state, lambda _: shapes, mesh, shard_from), functools.cache(lower)
    state, window = target["state"], target["window"]

    def step(number):
        trees = ((state, window, *given[number]), {}), (state, window, 0.0)
        again = lambda: (traced().step, traced().inner_step)[number]  # noqa: E731
        return kept.KeptStep(
            *payloads[number], [jax.tree.structure(tree) for tree in trees], mesh, again
        )

    return Lowered(target, given[0][0], step(0), step(1) if given[1:] else None, shapes)


def given_to_steps(config: ConfigDict, built: Built, mesh: Mesh) -> list[tuple]:
    """What each step takes beside the state.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      (frozen weights, inner batches, outer batch) with shardings, of the step of both levels and,
      where there is one, of the inner level.
    """
    images = _batch(config, jnp.uint8, sharding.split(mesh))
    frozen = sharding.whole(frozen_shapes(config), mesh)
    inner = [(frozen, images, images)] if built.inner_step else []
    return [(frozen, _of_a_step(config, images), images), *inner]


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
    return carried(
        lambda: init_state(built, config),
        lambda state: _step_metrics(config, built, mesh, state),
        mesh,
        config.mesh.shard_from,
    )


def carried(
    make_state: Callable[[], Any],
    metrics: Callable[[Any], Mapping[str, jax.ShapeDtypeStruct]],
    mesh: Mesh,
    shard_from: int,
) -> dict[str, Any]:
    """What a checkpoint of any stage holds, as shapes, dtypes and shardings; computes nothing.

    Args:
      make_state: -> the state before the first step, traceable.
      metrics: state -> shapes of the train step's metrics, by name.
      mesh: from sharding.make_mesh.
      shard_from: as sharding.shardings has it.

    Returns:
      {"state": ..., "window": ...}, with ShapeDtypeStructs for leaves.
    """

    def make():
        state = make_state()
        return {"state": state, "window": empty_window(metrics(state))}

    return sharding.placed(jax.eval_shape(make), mesh, shard_from)


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
