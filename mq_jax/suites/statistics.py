"""What several seeds say: means, and differences of runs that are alike but for one thing.

Errors are compared by their ratio: d_s = ln(error of the entry / error of the reference) at seed s,
which both have. Student's t on the d_s gives interval and p; they are paired because a seed draws
the initialisation, the order and the augmentation of both.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

# Of the intervals, and of the difference that a number of seeds is told for.
LEVEL = 0.95
DIFFERENCE = 0.02
POWER = 0.8

# Beyond it nobody trains.
MOST_SEEDS = 10_000


class Spread(NamedTuple):
    """Several seeds of one number.

    Attributes:
      mean: of them.
      deviation: of the sample, over n - 1; None for one seed.
      count: n.
    """

    mean: float
    deviation: float | None
    count: int


class Paired(NamedTuple):
    """An entry beside the reference, over the seeds that both have.

    Attributes:
      change: geometric mean of the ratios, less 1; negative: the entry is lower.
      low: of its interval, None for one seed.
      high: likewise.
      p: of the hypothesis that there is no difference, two-sided; None for one seed.
      changes: of each seed, a ratio less 1.
      needed: seeds with which DIFFERENCE would be seen with POWER; None where that is not known, or
        more than MOST_SEEDS.
    """

    change: float
    low: float | None
    high: float | None
    p: float | None
    changes: dict[int, float]
    needed: int | None


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and deviation of finite numbers.

    Args:
      values: of several seeds.

    Returns:
      None where there are none.
    """
    if not len(values):
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, len(values))


def paired(entry: Mapping[int, float], reference: Mapping[int, float]) -> Paired | None:
    """The difference of an entry from the reference.

    Args:
      entry: positive errors by seed.
      reference: likewise.

    Returns:
      None where no seed is in both.
    """
    seeds = sorted(set(entry) & set(reference))
    if not seeds:
        return None
    logs = np.log([entry[seed] / reference[seed] for seed in seeds])
    changes = {seed: math.expm1(log) for seed, log in zip(seeds, logs, strict=True)}
    mean = float(np.mean(logs))
    if len(seeds) < 2:
        return Paired(math.expm1(mean), None, None, None, changes, None)
    deviation = float(np.std(logs, ddof=1))
    if not deviation:
        # Equal ratios: an interval without width, which Student's t cannot divide by.
        p = 1.0 if mean == 0 else 0.0
        return Paired(math.expm1(mean), math.expm1(mean), math.expm1(mean), p, changes, 2)
    tested = stats.ttest_1samp(logs, 0.0)
    low, high = tested.confidence_interval(LEVEL)
    return Paired(
        math.expm1(mean),
        math.expm1(low),
        math.expm1(high),
        float(tested.pvalue),
        changes,
        seeds_needed(deviation),
    )


def power(seeds: int, deviation: float, difference: float = DIFFERENCE) -> float:
    """How often a difference is seen at the level: Student's t, two-sided, paired.

    Args:
      seeds: n, at least 2.
      deviation: of the paired log-ratios.
      difference: of the errors, a share.

    Returns:
      P(|T| > t_crit) of the noncentral t with n - 1 degrees of freedom and
      ln(1 + difference) sqrt(n) / deviation.
    """
    free = seeds - 1
    shift = math.log1p(difference) * math.sqrt(seeds) / deviation
    critical = stats.t.ppf((1 + LEVEL) / 2, free)
    beyond = stats.nct.sf(critical, free, shift)
    # Far out in the other tail SciPy has no number, and there is nothing.
    below = stats.nct.cdf(-critical, free, shift)
    return float(beyond + np.nan_to_num(below))


def seeds_needed(deviation: float, difference: float = DIFFERENCE) -> int | None:
    """The fewest seeds with which a difference is seen with POWER.

    Args:
      deviation: of the paired log-ratios, positive.
      difference: of the errors, a share.

    Returns:
      At least 2; None where it takes more than MOST_SEEDS.
    """
    # Power grows with n: doubled until it is enough, then halved between.
    high = 2
    while power(high, deviation, difference) < POWER:
        if high == MOST_SEEDS:
            return None
        high = min(2 * high, MOST_SEEDS)
    low = high // 2 + 1 if high > 2 else 2
    while low < high:
        middle = (low + high) // 2
        enough = power(middle, deviation, difference) >= POWER
        low, high = (low, middle) if enough else (middle + 1, high)
    return low
