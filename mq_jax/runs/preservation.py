"""Which checkpoint is the best, and which are kept: it and the last two."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from mq_jax.runs.checksums import is_unchanged
from mq_jax.runs.wholeness import RECORD

_LATEST_KEPT = 2  # A damaged latest checkpoint leaves one before it.


@dataclasses.dataclass
class LatestAndBest:
    """Orbax's preservation policy for the last two steps and the best one.

    Orbax's BestN takes the metrics from Orbax, which opens no directory with a damaged one.
    """

    values: dict[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says for each checkpoint whether to keep it."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-_LATEST_KEPT:], step_of_lowest(self.values, steps)}
        return [step in kept for step in steps]


def monitored_values(
    directory: pathlib.Path, steps: Sequence[int], monitor: str
) -> tuple[dict[int, float], list[int]]:
    """Reads the monitored metric of the steps.

    Args:
      directory: of the step folders.
      steps: that have one.
      monitor: name of the metric.

    Returns:
      (finite values by step, steps whose record is damaged).
    """
    values, damaged = {}, []
    for step in steps:
        folder = directory / str(step)
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            value = (record["metrics"] or {}).get(monitor, math.nan)
            finite = math.isfinite(value)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            damaged.append(step)
            continue
        if not is_unchanged(folder, RECORD):
            damaged.append(step)
        elif finite:
            values[step] = value
    return values, damaged


def step_of_lowest(values: dict[int, float], steps: Sequence[int]) -> int | None:
    """The best step.

    Args:
      values: the lower the better, by step.
      steps: to choose from.

    Returns:
      The one with the lowest value, of equals the later; None where none has a value.
    """
    candidates = [step for step in steps if step in values]
    return min(candidates, key=lambda step: (values[step], -step), default=None)
