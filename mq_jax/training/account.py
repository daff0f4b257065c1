"""What a run's state and its step take, told when the run starts."""

import math

from absl import logging
from clu import parameter_overview
from jax.sharding import Mesh

from mq_jax.algorithm.state import TrainState
from mq_jax.devices import sharding
from mq_jax.runs.cost import Cost
from mq_jax.terminal import console
from mq_jax.terminal.escaping import Block


def log_sizes(state: TrainState, mesh: Mesh) -> None:
    """Logs the size of each part, and of what a device holds; whole tables only in the log file.

    Args:
      state: of the run, on its devices.
      mesh: over which it lies.
    """
    params = {name: part for name, part in state.params._asdict().items() if part}
    logging.debug("%s", Block(parameter_overview.get_parameter_overview(params)))
    sizes = _parameters(state)
    logging.info("Parameters: %s", ", ".join(f"{n} {size:,}" for n, size in sizes.items()))
    parts = sharding.holdings(state)
    whole = sharding.total(parts)
    rows = [part.cells() for part in (*parts, whole)]
    title = f"State on {dict(mesh.shape)}"
    # On one device the line below says it all.
    console.log_table(title, sharding.HOLDING_COLUMNS, rows, terminal=mesh.size > 1)
    logging.info(
        "State: %.1f MiB, %.1f on each of %d device(s) (data %d, fsdp %d); %d of %d split",
        *(whole.size / 2**20, whole.per_device / 2**20, mesh.size),
        *(*mesh.shape.values(), whole.sharded, whole.arrays),
    )


def cost_of(state: TrainState, mesh: Mesh, *, flops: float, compile_seconds: float) -> Cost:
    """The cost of a run's step.

    Args:
      state: of the run, on its devices.
      mesh: over which it lies.
      flops: of a step on one device; not a number where XLA does not count.
      compile_seconds: of the step.

    Returns:
      A Cost.
    """
    whole = sharding.total(sharding.holdings(state))
    return Cost(
        _parameters(state),
        flops if math.isfinite(flops) else None,
        round(compile_seconds, 1),
        *(int(whole.size), int(whole.per_device), mesh.size),
    )


def _parameters(state):
    """Numbers that are trained, by part."""
    parts = state.params._asdict().items()
    return {name: int(parameter_overview.count_parameters(part)) for name, part in parts if part}
