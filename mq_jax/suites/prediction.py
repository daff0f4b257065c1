"""How long the runs of a suite will take: from what was measured in its folder, or from FLOPs."""

import json
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from mq_jax.suites.outcome import (
    DIFFERS,
    FAILED,
    FINISHED,
    Outcome,
    last_step,
    outcome_of,
    read_ending,
)
from mq_jax.suites.results import Result
from mq_jax.suites.schedule import WHOLE, Scheduled, Shard

MEASURED, BY_FLOPS, UNKNOWN = "measured", "by FLOPs", "unknown"
BUDGET, PRODUCT = "budget", "product's rate"

# So many measured entries say how fast this machine is; each takes seconds to trace.
_MOST_TRACED = 3

# Of which the seconds of a step do not depend.
_OF_LENGTH = ("steps", "epochs", "patience", "log_every", "eval_every", "checkpoint_every")


class Prediction(NamedTuple):
    """A run of a suite before it runs.

    Attributes:
      scheduled: the run.
      outcome: how it stands.
      steps: that it has in all; 0: not known.
      spent: seconds of its processes so far; 0 where nothing tells.
      seconds: that it will still take; None: not known.
      origin: MEASURED, BY_FLOPS, BUDGET, PRODUCT or UNKNOWN; "" where nothing is left.
      is_least: whether it takes longer than these seconds, by an amount that is not known.
    """

    scheduled: Scheduled
    outcome: Outcome
    steps: int
    spent: float
    seconds: float | None
    origin: str
    is_least: bool


class Tracing(NamedTuple):
    """How the seconds of a step follow from its FLOPs.

    Attributes:
      flops_of: FLOPs of a step of a configuration.
      roof: FLOP/s that a step of a configuration does not exceed on this machine; asked only where
        no entry was measured.
    """

    flops_of: Callable[[ConfigDict], float]
    roof: Callable[[ConfigDict], float]


def predictions(
    runs: Sequence[Scheduled],
    results: Sequence[Result],
    steps_of: Callable[[ConfigDict], int] = lambda config: config.train.steps,
    *,
    shard: Shard = WHOLE,
    timings: Sequence[Scheduled] = (),
    budget: float = 0.0,
    tracing: Tracing | None = None,
) -> list[Prediction]:
    """What the runs of a suite will take.

    Args:
      runs: all, with their steps where these are given or timed.
      results: of the suite's folder.
      steps_of: steps of a configuration, 0 where they are not known; asked of what is not finished.
      shard: of which runs is asked; those of others may have been measured.
      timings: the runs that time the steps of a budget.
      budget: seconds of training of each run; 0: steps count.
      tracing: None: what was not measured is not known.

    Returns:
      A Prediction for each of the timings and the shard's runs: the steps that are left, at the
      rate of the entry's own runs, or by the FLOPs of its step at that of other entries, or where
      none was measured at the roof; and what measured runs took beside their steps.
    """
    rates, beside = _Rates(runs, results, tracing), _beside(results)
    found = [_prediction(one, rates, beside, 0.0, steps_of) for one in timings]
    return found + [_prediction(one, rates, beside, budget, steps_of) for one in shard.of(runs)]


def predictions_table(found: Sequence[Prediction]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells for the terminal.

    Args:
      found: from predictions.

    Returns:
      A row for each run, and the sums of what is known.
    """
    rows = [
        [
            one.scheduled.name,
            one.outcome.state,
            f"{one.steps:,}" if one.steps else "-",
            _minutes(one.spent) if one.spent else "-",
            _left(one.seconds, one.is_least) if one.origin else "-",
            one.origin or "-",
        ]
        for one in found
    ]
    spent, left, is_least = totals(found)
    unknown = sum(one.origin == UNKNOWN for one in found)
    sums = [_minutes(spent) if spent else "-", _left(left, is_least)]
    rows.append(["all", "", "", *sums, f"{unknown} unknown" if unknown else ""])
    return ["run", "state", "steps", "minutes so far", "minutes left", "from"], rows


def totals(found: Sequence[Prediction]) -> tuple[float, float | None, bool]:
    """Seconds of all runs.

    Args:
      found: from predictions.

    Returns:
      Those so far, those that are left, None where none of them are known, and whether these are
      the least that it takes.
    """
    waiting = [one for one in found if one.origin]
    known = [one.seconds for one in waiting if one.seconds is not None]
    left = sum(known) if known or not waiting else None
    is_least = any(one.is_least or one.seconds is None for one in waiting)
    return sum(one.spent for one in found), left, is_least


def _prediction(scheduled, rates, beside, budget, steps_of) -> Prediction:
    """What one run will take."""
    outcome, ending = _outcome(scheduled), read_ending(scheduled.folder)
    steps, last = scheduled.config.train.steps, last_step(scheduled.folder)
    spent = ending.seconds if ending else 0.0
    if outcome.state in (FINISHED, DIFFERS):
        return Prediction(scheduled, outcome, steps or last, spent, 0.0, "", False)
    if budget:
        share, origin = max(1 - last / steps, 0.0) if steps else 1.0, BUDGET
        training = budget * share
    else:
        steps = steps_of(scheduled.config)
        rate, origin = rates.of(scheduled) if steps else (None, UNKNOWN)
        training = None if rate is None else rate * max(steps - last, 0)
    seconds = None if training is None else training + (beside or 0.0)
    is_least = seconds is not None and (beside is None or origin == PRODUCT)
    return Prediction(scheduled, outcome, steps, spent, seconds, origin, is_least)


class _Rates:
    """Seconds of a step: measured, or from its FLOPs and the speed at which others are computed."""

    def __init__(self, runs, results, tracing):
        self._tracing, self._known, self._speed = tracing, {}, None
        self._rates = _rates(results)
        self._measured = [run for run in runs if run.entry in self._rates]
        # An entry that differs in its length alone takes as long for a step.
        self._alike = {_step_of(run): self._rates[run.entry] for run in self._measured}

    def of(self, scheduled: Scheduled) -> tuple[float | None, str]:
        """Seconds and their origin; None where nothing tells them."""
        rate = self._rates.get(scheduled.entry, self._alike.get(_step_of(scheduled)))
        if rate is not None:
            return rate, MEASURED
        if self._tracing is None:
            return None, UNKNOWN
        if self._measured:
            return self._seconds_per_flop() * self._flops(scheduled), BY_FLOPS
        # Before the FLOPs: a product is timed on the device, which counting does without.
        roof = self._tracing.roof(scheduled.config)
        return self._flops(scheduled) / roof, PRODUCT

    def _seconds_per_flop(self):
        """The median over some measured entries."""
        if self._speed is None:
            one_each = {run.entry: run for run in reversed(self._measured)}
            some = list(one_each.values())[-_MOST_TRACED:]
            self._speed = statistics.median(
                self._rates[run.entry] / self._flops(run) for run in some
            )
        return self._speed

    def _flops(self, scheduled):
        key = _step_of(scheduled)
        if key not in self._known:
            self._known[key] = self._tracing.flops_of(scheduled.config)
        return self._known[key]


def _step_of(scheduled: Scheduled) -> str:
    """All fields but the seed and those of the length and of what is done between steps."""
    fields = scheduled.config.to_dict()
    fields["seed"] = 0
    fields["train"] |= dict.fromkeys(_OF_LENGTH, 0)
    return json.dumps(fields, sort_keys=True)


def _rates(results: Sequence[Result]) -> dict[str, float]:
    """Seconds of a step by entry, the median over its runs."""
    found: dict[str, list[float]] = {}
    for result in results:
        if result.seconds_per_step:
            found.setdefault(result.entry, []).append(result.seconds_per_step)
    return {entry: statistics.median(own) for entry, own in found.items()}


def _beside(results: Sequence[Result]) -> float | None:
    """Seconds that a measured run took beside its steps; None where none was measured."""
    found = [r.wall_seconds - r.seconds for r in results if r.wall_seconds and r.seconds]
    return max(statistics.median(found), 0.0) if found else None


def _outcome(scheduled: Scheduled) -> Outcome:
    """How a run stands, also where its folder is damaged."""
    try:
        return outcome_of(scheduled)
    except (ValueError, OSError) as error:
        return Outcome(FAILED, str(error))


def _left(seconds: float | None, is_least: bool) -> str:
    least = "at least " if is_least and seconds is not None else ""
    return f"{least}{'-' if seconds is None else _minutes(seconds)}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.1f}"
