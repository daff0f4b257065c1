"""What a run's step takes, as the last start of training found it: for the report."""

import json
import math
import pathlib
from typing import Any, NamedTuple

from mq_jax.runs.files import read_json
from mq_jax.runs.workdir import write_atomically

FILE = "cost.json"


class Cost(NamedTuple):
    """One train step and what it carries.

    Attributes:
      parameters: numbers that are trained, by part.
      flops: of a step on one device, as XLA counts them; None where it does not.
      compile_seconds: of the step; few where an earlier start left it in the cache.
      state_bytes: of all that a step carries to the next one.
      state_bytes_per_device: of it, what one device holds.
      devices: of the mesh.
    """

    parameters: dict[str, int]
    flops: float | None
    compile_seconds: float
    state_bytes: int
    state_bytes_per_device: int
    devices: int


def write_cost(folder: pathlib.Path, cost: Cost) -> None:
    """Writes `cost.json`, whole or not at all.

    Args:
      folder: of the run.
      cost: replaces the one that is there.
    """
    write_atomically(folder / FILE, json.dumps(cost._asdict(), indent=2) + "\n")


def read_cost(folder: pathlib.Path) -> Cost:
    """Reads `cost.json`.

    Args:
      folder: of the run.

    Returns:
      A Cost.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is damaged.
    """
    path = folder / FILE
    try:
        cost = Cost(**read_json(path))
        numbers = [*cost.parameters.values(), cost.flops or 0.0, *cost[2:]]
        if not all(_is_count(number) for number in numbers):
            raise ValueError("not all numbers are counts")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); the training command writes it anew."
        ) from error
    return cost


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
