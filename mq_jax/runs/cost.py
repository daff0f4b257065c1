"""What a run's step takes, as the last start of training found it: for the report."""

import os
import pathlib
from typing import NamedTuple

from mq_jax.runs.records import write_record
from mq_jax.storage.schema import AMOUNT, Each, Nullable, check, read_json, whole

FILE = "cost.json"

_SCHEMA = {
    "parameters": Each(whole(0)),
    "flops": Nullable(AMOUNT),
    "compile_seconds": AMOUNT,
    "state_bytes": whole(0),
    "state_bytes_per_device": whole(0),
    "devices": whole(1),
}
_INNER = {"inner_flops": Nullable(AMOUNT)}


class Cost(NamedTuple):
    """One train step and what it carries.

    Attributes:
      parameters: numbers that are trained, by part.
      flops: of a step on one device, as XLA counts them; None where it does not. Of the two kinds
        that may alternate, of that of both levels.
      compile_seconds: of the step; few where an earlier start left it in the cache.
      state_bytes: of all that a step carries to the next one.
      state_bytes_per_device: of it, what one device holds.
      devices: of the mesh.
      inner_flops: as flops, of the step of the inner level alone; 0: there is none. None also in
        files of before, which lack it.
    """

    parameters: dict[str, int]
    flops: float | None
    compile_seconds: float
    state_bytes: int
    state_bytes_per_device: int
    devices: int
    inner_flops: float | None = None


def write_cost(folder: pathlib.Path, cost: Cost) -> None:
    """Writes `cost.json`, whole or not at all.

    Args:
      folder: of the run.
      cost: replaces the one that is there.
    """
    write_record(folder / FILE, cost)


def read_cost(folder: str | os.PathLike) -> Cost:
    """Reads `cost.json`.

    Args:
      folder: of the run.

    Returns:
      A Cost.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is damaged.
    """
    path = pathlib.Path(folder) / FILE
    try:
        stored = {"inner_flops": None} | read_json(path, _SCHEMA)
        check(stored, _INNER)
        return Cost(**stored)
    # An unknown field is a TypeError.
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); the training command writes it anew."
        ) from error
