"""The state before the first step."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.algorithm.pipelined import with_kept, with_past
from mq_jax.algorithm.state import Parts, TrainState
from mq_jax.quantizers.bases import started_from
from mq_jax.training.build import Built
from mq_jax.training.frozen import frozen_shapes
from mq_jax.training.initial import init_model, made_in_place, made_once


def draw_model(built: Built, config: ConfigDict) -> dict[str, Any]:
    """Parameters and statistics before the first step, as the seed has them; traceable.

    Args:
      built: of the same configuration.
      config: its seed and image size are read.

    Returns:
      As init_model.
    """
    return init_model(built.problem, config.data.image_size, _keys(config)[1:])


def init_state(
    built: Built,
    config: ConfigDict,
    model: Mapping[str, Any] | None = None,
    tables: Sequence[jax.Array] = (),
) -> TrainState:
    """The state before the first step; traceable.

    Args:
      built: of the same configuration.
      config: its seed, image size, kind of hyper-gradient and batch size are read.
      model: as draw_model returns it; None: that of the seed.
      tables: from starting.starting_tables, in the place of its bases; () for these.

    Returns:
      A TrainState at step 0.
    """
    problem = built.problem
    model = dict(model or draw_model(built, config))
    params = model["params"]
    if len(tables):
        phi, model["quantizer"] = started_from((params.codebook, model["quantizer"]), tables)
        model["params"] = params = params._replace(codebook=phi)
    # A quantizer without parameters has an optimizer all the same, of nothing.
    optimizers = problem.optimizers if problem.adversary is not None else problem.optimizers[:2]
    opt_states = [
        o.init(part) for o, part in zip(optimizers, params[: len(optimizers)], strict=True)
    ]
    step, rng = jnp.zeros((), jnp.int32), _keys(config)[0]
    state = TrainState(step=step, opt_state=Parts(*opt_states), rng=rng, ema=(), **model)
    if config.train.hypergradient == "pipelined":
        side = config.data.image_size
        shape = (config.train.batch_size, side, side, 3)
        state = _with_step_before(problem, state, jax.ShapeDtypeStruct(shape, jnp.float32), config)
    return state.replace(ema=state.raw) if problem.ema_decay else state


def drawn(config: ConfigDict, built: Built) -> dict[str, Any]:
    """The parameters and statistics of the seed, on the first device of each process.

    Args:
      config: validated.
      built: of the same configuration.

    Returns:
      As draw_model.
    """
    return made_once(lambda: draw_model(built, config))


def first_state(
    config: ConfigDict,
    built: Built,
    mesh: Mesh,
    model: Mapping[str, Any],
    tables: Sequence[np.ndarray] = (),
) -> TrainState:
    """The state before the first step, where checkpoint_target has it.

    Args:
      config: validated.
      built: of the same configuration.
      mesh: from sharding.make_mesh.
      model: as draw_model's, the same in all processes.
      tables: as init_state's, likewise.

    Returns:
      A TrainState at step 0.
    """

    def make(*given):
        return init_state(built, config, *given)

    # What one process has is given to all devices of all of them.
    given = jax.device_get((dict(model), tuple(tables)))
    return made_in_place(make, mesh, config.mesh.shard_from, *given)


def _keys(config):
    """The random keys of a run: its steps', the auto-encoder's, the codebook's, the last net's."""
    return jax.random.split(jax.random.key(config.seed), 4)


def _with_step_before(problem, state, images, config):
    """The state of a pipelined run at step 0."""
    if not config.train.keep_activations:
        return with_past(state, images)
    estimator = config.train.straight_through
    return with_kept(problem, state, images, frozen_shapes(config), straight_through=estimator)
