"""Time in training steps, from the rates in the lines of metrics.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mq_jax.report.curves import Curve

RATE = "train/images_per_second"


def elapsed(rows: Sequence[Mapping[str, Any]], batch: int) -> Curve:
    """Seconds in training steps up to each line that has a rate.

    Args:
      rows: lines of metrics.jsonl.
      batch: images of a step of the inner level.

    Returns:
      A Curve of seconds; compilation and evaluations are not in them.
    """
    timed = [row for row in rows if row.get(RATE)]
    steps = np.array([row["step"] for row in timed], np.int64)
    rates = np.array([row[RATE] for row in timed], np.float64)
    return Curve(steps, np.cumsum(np.diff(steps, prepend=0) * batch / rates))


def seconds_per_step(
    rows: Sequence[Mapping[str, Any]], batch: int, *, without_first: bool = False
) -> float | None:
    """Seconds of a step at the median rate of the windows of the log.

    Args:
      rows: lines of metrics.jsonl.
      batch: images of a step of the inner level.
      without_first: whether the first window, in which a process starts, does not count.

    Returns:
      Seconds; None where no line has a rate.
    """
    rates = [row[RATE] for row in rows if row.get(RATE)]
    rates = rates[1:] if without_first and len(rates) > 1 else rates
    return float(batch / np.median(rates)) if rates else None
