"""Curves from the lines of metrics.jsonl, thinned so that a page of long runs stays small."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_POINTS = 2000


class Curve(NamedTuple):
    """One metric over the steps.

    Attributes:
      steps: i64[n], increasing.
      values: f64[n]; NaN is a gap.
    """

    steps: np.ndarray
    values: np.ndarray


def curve(rows: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """The curve of a metric.

    Args:
      rows: lines of metrics.jsonl.
      name: of the metric; lines without it do not count, null is a gap.

    Returns:
      A Curve, empty where no line has the metric.
    """
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    values = [np.nan if value is None else value for _, value in pairs]
    return Curve(np.array([step for step, _ in pairs], np.int64), np.array(values, np.float64))


def names_in(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that have a number in some line, in the order of their first appearance."""
    found = {name: None for row in rows for name, value in row.items() if value is not None}
    return [name for name in found if name != "step"]


def thinned(points: Curve, most: int = MOST_POINTS) -> Curve:
    """At most so many points, among them the ends, every peak and every gap that is wide enough.

    Args:
      points: of any length.
      most: at least 5.

    Returns:
      The curve itself if it is short; else its first and last point and, of each of equal
      stretches between them, the lowest, the highest and the first gap.
    """
    count = len(points.steps)
    if count <= most:
        return points
    kept = {0, count - 1}
    for stretch in np.array_split(np.arange(1, count - 1), (most - 2) // 3):
        values = points.values[stretch]
        finite = np.isfinite(values)
        if finite.any():
            kept |= {int(stretch[np.nanargmin(values)]), int(stretch[np.nanargmax(values)])}
        if not finite.all():
            kept.add(int(stretch[np.argmin(finite)]))
    chosen = sorted(kept)
    return Curve(points.steps[chosen], points.values[chosen])


def spans_decades(curves: Sequence[Curve]) -> bool:
    """Whether a logarithmic axis serves: all is positive, and most of it spans a factor of 30."""
    values = np.concatenate([points.values for points in curves] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if values.size < 3 or values.min() <= 0:
        return False
    low, high = np.percentile(values, (1, 99))
    return bool(high > 30 * low)
