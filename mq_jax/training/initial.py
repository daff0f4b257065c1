"""What a run begins with: all that is learned, and what is counted beside it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mq_jax.algorithm import mq
from mq_jax.algorithm.state import Parts
from mq_jax.devices import sharding


def init_model(
    problem: mq.Problem,
    side: int,
    keys: Sequence[jax.Array],
) -> dict[str, Any]:
    """Parameters and statistics before the first step; traceable.

    Args:
      problem: of the run.
      side: of its images, pixels.
      keys: of the auto-encoder, the codebook and the discriminator.

    Returns:
      The fields `params`, `batch_stats`, `quantizer` and `anchors` of a TrainState.
    """
    theta_key, phi_key, psi_key = keys
    images = jnp.zeros((1, side, side, 3))
    theta = problem.objective.autoencoder.init(theta_key, images, train=False)
    phi, quantizer_state = problem.objective.quantizer.init(phi_key)
    params = Parts(theta["params"], phi)
    if problem.adversary is not None:
        psi = problem.adversary.discriminator.init(psi_key, images)["params"]
        params = params._replace(discriminator=psi)
    return {
        "params": params,
        "batch_stats": theta["batch_stats"] if "batch_stats" in theta else {},
        "quantizer": quantizer_state,
        "anchors": jnp.zeros(2),
    }


def made_once(make: Callable, *given: Any, places: Any = None) -> Any:
    """Runs what draws the numbers that a run begins with.

    Args:
      make: (*given) -> a tree, traceable.
      given: arrays.
      places: shardings of the tree, or of parts of it; None: where JAX puts it.

    Returns:
      What it makes, on the devices.
    """
    # Random numbers compile slowly on a CPU and run once: a third of the time at level 1.
    options = {"xla_backend_optimization_level": 1}
    lowered = jax.jit(make, out_shardings=places).lower(*given)
    return lowered.compile(compiler_options=options)(*given)


def made_in_place(make: Callable, mesh: Mesh, shard_from: int, *given: Any) -> Any:
    """Runs what makes the arrays before the first step, each where a checkpoint has it.

    Args:
      make: (*given) -> a tree, traceable.
      mesh: from sharding.make_mesh.
      shard_from: as sharding.shardings has it.
      given: arrays, the same in all processes.

    Returns:
      What it makes, on the devices.
    """
    given = jax.device_put(given, sharding.replicated(mesh))
    # Jitted, so that JAX traces it once for this and for the program.
    shapes = jax.eval_shape(jax.jit(make), *given)
    return made_once(make, *given, places=sharding.shardings(shapes, mesh, shard_from))
