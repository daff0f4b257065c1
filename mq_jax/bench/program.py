"""A train step as a run compiles it, ready to be timed, and what it takes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.devices.cache import FOUND, cache_events
from mq_jax.planning import flops
from mq_jax.training.build import build
from mq_jax.training.first import init_state
from mq_jax.training.frozen import frozen_shapes, load_frozen
from mq_jax.training.lowering import lower_program
from mq_jax.training.program import start

# Nothing but schedules depends on it.
_STEPS = 1000


class Program(NamedTuple):
    """A compiled train step.

    Attributes:
      run: begins the next step from the state that the last one left; what it returns is there
        once the step is done.
      flops: of the compiled program, as XLA counts them; the bodies of loops once.
      model_flops: of convolutions and products that the mathematics of the step asks for: without
        recomputation, with plain convolutions.
      executed_flops: of those that the program computes: recomputed ones too, and on a CPU those
        of Winograd's filtering in the place of the convolutions'.
      memory: bytes that it takes at once: arguments, results and all between, what the results
        take over of the arguments once.
      compile_seconds: from its trace to its end.
      cached: whether it came out of the compilation cache, so that these are few.
      text: makes the compiled program's HLO.
    """

    run: Callable[[], Any]
    flops: float
    model_flops: float
    executed_flops: float
    memory: int
    compile_seconds: float
    cached: bool
    text: Callable[[], str]


def variant(config: ConfigDict, kind: str, straight_through: str, **changes: Any) -> ConfigDict:
    """A configuration with another step.

    Args:
      config: validated.
      kind: as config.train.hypergradient.
      straight_through: as config.train.straight_through.
      changes: of further fields of its section train, whose inner updates are one otherwise.

    Returns:
      The other one, not validated.
    """
    other = ConfigDict(config.to_dict())
    alone = {"inner_updates": 1, "unroll": 1, "roll_back": False, "outer_data": "other"}
    own = {"hypergradient": kind, "straight_through": straight_through, "steps": _STEPS}
    other.train.update(alone | own | changes)
    return other


def compiled_step(config: ConfigDict, kind: str, straight_through: str, **changes: Any) -> Program:
    """The program of a run on one device: images of uint8, the state donated and fed back.

    Args:
      config: validated.
      kind: as config.train.hypergradient.
      straight_through: as config.train.straight_through.
      changes: as variant's.

    Returns:
      A Program.
    """
    config = variant(config, kind, straight_through, **changes)
    mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
    built = build(config, _STEPS, mesh)
    started = time.perf_counter()
    lowered = lower_program(config, built, mesh).step
    compiled, cached = _compiled(lowered)
    seconds = time.perf_counter() - started
    executed = _matrix(lowered)
    plain = not config.model.remat and mesh.devices.flat[0].platform != "cpu"
    return Program(
        _chained(compiled, config, start(config, built, mesh), mesh),
        (compiled.cost_analysis() or {}).get("flops", float("nan")),
        executed if plain else model_flops(config, mesh),
        executed,
        _memory(compiled),
        *(seconds, cached, compiled.as_text),
    )


def model_flops(config: ConfigDict, mesh: Mesh) -> float:
    """What the mathematics of a step asks for, counted in a trace, without compiling it.

    Args:
      config: validated; recomputation is left out, whatever it says.
      mesh: of one device.

    Returns:
      FLOPs of convolutions and products, two for a multiplication and its addition.
    """
    config = ConfigDict(config.to_dict())
    config.model.remat = False
    built = build(config, _STEPS, mesh)
    state = jax.eval_shape(lambda: init_state(built, config))
    images = jax.ShapeDtypeStruct(_shape(config), jnp.float32)
    arguments = state, _inner(config, images), images, frozen_shapes(config)
    # For a GPU convolutions stay what they are; for a CPU they would be Winograd's products.
    return _matrix(jax.jit(built.train_step).trace(*arguments).lower(lowering_platforms=("cuda",)))


def _matrix(lowered):
    """FLOPs of convolutions and products of a traced program."""
    return sum(found.matrix for found in flops.of_traced(lowered).values())


def _compiled(lowered):
    """(the compiled program, whether it came out of JAX's cache)."""
    with cache_events() as told:
        return lowered.compile(), FOUND in told


def _memory(compiled):
    told = compiled.memory_analysis()
    given = told.argument_size_in_bytes + told.output_size_in_bytes
    return given + told.temp_size_in_bytes - told.alias_size_in_bytes


def _chained(compiled, config, arrays, mesh):
    """A function that begins the next step."""
    frozen = jax.device_put(load_frozen(config), sharding.replicated(mesh))
    pixels = np.random.default_rng(0).integers(0, 256, _shape(config), np.uint8)
    images = jax.device_put(pixels, sharding.split(mesh))
    given = frozen, _inner(config, images), images
    state, window = arrays["state"], arrays["window"]

    def run():
        nonlocal state, window
        state, window, loss = compiled(state, window, *given)
        return loss

    return run


def _shape(config):
    size = config.data.image_size
    return config.train.batch_size, size, size, 3


def _inner(config, images):
    """The inner batches of one step."""
    return (images,) * config.train.unroll if config.train.unroll > 1 else images
