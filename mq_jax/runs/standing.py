"""Which evaluation of a run is its best: one rule for training, checkpoints, table and report.

The lowest monitored number is, of equals the later. Never one that is not finite, nor that of
step 0, which has no checkpoint. Those from the settled step on, where an adversarial term has its
whole weight, go before all others: with less of it, a model is measured on another objective.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import read_json, whole

FILE = "settled.json"

# Of a run without an adversarial term: all steps but that before the first.
FIRST = 1

_SCHEMA = {"settled": whole(FIRST)}


def rank(step: int, value: float | None, settled: int) -> tuple[bool, float, int] | None:
    """The place of an evaluation among those of its run.

    Args:
      step: of the state.
      value: the monitored number, the lower the better; None where there is none.
      settled: the first step from which on evaluations go before earlier ones.

    Returns:
      The lower the better; None for what is never the best.
    """
    if step < FIRST or value is None or not math.isfinite(value):
        return None
    return step < settled, value, -step


def step_of_best(values: Mapping[int, float | None], settled: int) -> int | None:
    """The best of several evaluations.

    Args:
      values: the monitored numbers by step.
      settled: as rank's.

    Returns:
      Its step; None where none can be the best.
    """
    ranks = {step: rank(step, value, settled) for step, value in values.items()}
    candidates = {step: own for step, own in ranks.items() if own is not None}
    return min(candidates, key=candidates.__getitem__, default=None)


def best_row(rows: Sequence[Mapping[str, Any]], monitor: str, settled: int) -> Any:
    """The best line of metrics.jsonl.

    Args:
      rows: lines, each of another step.
      monitor: logged name of the monitored metric; null in a line is no number.
      settled: as rank's.

    Returns:
      One of the lines; None where none can be the best.
    """
    best = step_of_best({row["step"]: row.get(monitor) for row in rows}, settled)
    return next((row for row in rows if row["step"] == best), None)


@dataclasses.dataclass
class Standing:
    """What a resumed run must remember beside its arrays; all of it fits JSON.

    Attributes:
      best: monitored number of the best evaluation so far, None before one.
      best_step: its step; checkpoints of before have none.
      stale: settled evaluations since one was better.
      stopped_early: whether patience has run out.
      bad_images: record numbers of unreadable images, by level.
      listing: of the data that they belong to, as Feed has it; "": not known.
    """

    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    stopped_early: bool = False
    bad_images: tuple[list[int], list[int]] = ([], [])
    listing: str = ""

    def add(self, step: int, value: float, *, settled: int, patience: int) -> bool:
        """Takes an evaluation into account.

        Args:
          step: of the state.
          value: the monitored number.
          settled: as rank's.
          patience: settled evaluations without a better one that stop the run; 0: none do.

        Returns:
          Whether it is the best now.
        """
        own = rank(step, value, settled)
        best = None if self.best_step is None else rank(self.best_step, self.best, settled)
        chosen = own is not None and (best is None or own < best)
        # Of equals the later is kept, but nothing has become better.
        better = chosen and (best is None or own[:2] < best[:2])
        if chosen:
            self.best, self.best_step = value, step
        self.stale = 0 if better or step < settled else self.stale + 1
        self.stopped_early = 0 < patience <= self.stale
        return chosen

    def take_over(self, best_step: int | None, best: float | None, *, counting: bool) -> None:
        """Sets the best of a run of before, which compared evaluations that do not compare.

        What it lost of its patience to a best that is none, or before any counts, it gets back.

        Args:
          best_step: as today's rule has it.
          best: its monitored number.
          counting: whether evaluations at this step take from patience.
        """
        if best != self.best or not counting:
            self.stale, self.stopped_early = 0, False
        self.best, self.best_step = best, best_step


def write_settled(folder: pathlib.Path, settled: int) -> None:
    """Writes `settled.json`, for whoever knows the folder alone.

    Args:
      folder: of the run.
      settled: as rank's; a run without an adversarial term has no such file.

    Raises:
      OSError: it cannot be written.
    """
    if settled > FIRST:
        write_atomically(folder / FILE, json.dumps({"settled": settled}) + "\n")


def read_settled(folder: pathlib.Path) -> int:
    """Reads `settled.json`.

    Args:
      folder: of the run.

    Returns:
      The settled step; FIRST where no file says so, as in runs of before.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is damaged.
    """
    path = folder / FILE
    try:
        return read_json(path, _SCHEMA)["settled"]
    except FileNotFoundError:
        return FIRST
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); the training command writes it anew; without it all "
            "evaluations count alike."
        ) from error
