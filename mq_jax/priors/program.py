"""The compiled step of a prior's training, and the arrays that it starts from or is restored to."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.priors.build import Built, init_state
from mq_jax.priors.state import PriorState
from mq_jax.priors.step import LOSS
from mq_jax.training.initial import made_in_place
from mq_jax.training.kept import Place
from mq_jax.training.lowering import Lowered, carried, lower_step, traced_once
from mq_jax.training.program import Program, compiled_or_kept


def compile_program(
    config: ConfigDict, built: Built, mesh: Mesh, place: Place | None = None
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
        lambda: [_given(config, built, mesh)],
        mesh,
        config.mesh.shard_from,
        place,
    )


def lower_program(config: ConfigDict, built: Built, mesh: Mesh) -> Lowered:
    """Traces the train step, donations and shardings included.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      A Lowered without an inner step.
    """
    target = checkpoint_target(config, built, mesh)
    shapes = _step_metrics(config, built, mesh, target["state"])
    given = _given(config, built, mesh)
    step = lower_step(traced_once(built.train_step), target, given, shapes, LOSS, mesh)
    return Lowered(target, (), step, None, shapes)


def checkpoint_target(config: ConfigDict, built: Built, mesh: Mesh) -> dict[str, Any]:
    """What a checkpoint holds, as shapes, dtypes and shardings; computes nothing.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      {"state": PriorState, "window": collection}, with ShapeDtypeStructs for leaves.
    """
    return carried(
        lambda: init_state(built, config),
        lambda state: _step_metrics(config, built, mesh, state),
        mesh,
        config.mesh.shard_from,
    )


def first_state(config: ConfigDict, built: Built, mesh: Mesh) -> PriorState:
    """The state before the first step, where checkpoint_target has it.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.

    Returns:
      A PriorState at step 0.
    """
    return made_in_place(lambda: init_state(built, config), mesh, config.mesh.shard_from)


def batch(config: ConfigDict, built: Built, placement: Any) -> tuple:
    """Descriptions of a batch.

    Args:
      config: its batch size is read.
      built: of the same configuration.
      placement: a sharding or None.

    Returns:
      (tokens i32[B, n, J], labels i32[B]).
    """
    size, space = config.train.batch_size, built.prior.space
    shapes = (size, space.places, space.levels), (size,)
    return tuple(jax.ShapeDtypeStruct(shape, jnp.int32, sharding=placement) for shape in shapes)


def _given(config, built, mesh):
    """Of the step beside the state: no frozen weights, a batch."""
    return (), *batch(config, built, sharding.split(mesh))


def _step_metrics(config, built, mesh, state):
    """Shapes and dtypes of the train step's metrics, by name."""
    # Placed as in lower_program, so that JAX traces the step once for both.
    given = _given(config, built, mesh)
    state = sharding.placed(state, mesh, config.mesh.shard_from)
    return jax.eval_shape(traced_once(built.train_step), state, *given)[1]
