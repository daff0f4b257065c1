"""Which checkpoints are kept: the last two and the best."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from mq_jax.runs.checksums import is_unchanged
from mq_jax.runs.standing import step_of_best
from mq_jax.runs.wholeness import RECORD

_LATEST_KEPT = 2  # A damaged latest checkpoint leaves one before it.


@dataclasses.dataclass
class LatestAndBest:
    """Orbax's preservation policy for the last two steps and the best one, of standing.rank.

    Orbax's BestN takes the metrics from Orbax, which opens no directory with a damaged one.
    """

    values: dict[int, float]
    settled: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says for each checkpoint whether to keep it."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        values = {step: self.values.get(step) for step in steps}
        kept = {*sorted(steps)[-_LATEST_KEPT:], step_of_best(values, self.settled)}
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
