"""How long the runs of a suite will take, from what was measured in its folder."""

import json
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from mq_jax.suites.outcome import DIFFERS, FAILED, FINISHED, Outcome, last_step, outcome_of
from mq_jax.suites.results import Result
from mq_jax.suites.schedule import Scheduled

MEASURED, BY_FLOPS, UNKNOWN = "measured", "by FLOPs", "unknown"

# So many measured entries say how fast this machine is; each takes seconds to trace.
_MOST_TRACED = 3


class Prediction(NamedTuple):
    """A run of a suite before it runs.

    Attributes:
      scheduled: the run.
      outcome: how it stands.
      steps: that it has in all; 0: not known.
      seconds: that it will still take; None: not known.
      origin: MEASURED, BY_FLOPS or UNKNOWN; "" where nothing is left.
    """

    scheduled: Scheduled
    outcome: Outcome
    steps: int
    seconds: float | None
    origin: str


def predictions(
    runs: Sequence[Scheduled],
    results: Sequence[Result],
    budget: float = 0.0,
    flops_of: Callable[[ConfigDict], float] | None = None,
) -> list[Prediction]:
    """What the runs of a suite will take.

    Args:
      runs: with their steps, where these are known.
      results: of the suite's folder.
      budget: seconds of training of each run; 0: steps count.
      flops_of: FLOPs of a step of a configuration; None: what was not measured is not known.

    Returns:
      A Prediction for each run: the steps that are left, at the rate of the entry's own runs or, by
      the FLOPs of its step, of other entries', and what measured runs took beside their steps.
    """
    rates = _rates(results)
    overheads = [r.wall_seconds - r.seconds for r in results if r.wall_seconds and r.seconds]
    overhead = max(statistics.median(overheads), 0.0) if overheads else 0.0
    # An entry that differs in its length alone takes as long for a step.
    alike = {_step_of(run): rates[run.entry] for run in runs if run.entry in rates}
    by_flops = _ByFlops(runs, rates, flops_of)
    found = []
    for scheduled in runs:
        outcome, steps = _outcome(scheduled), scheduled.config.train.steps
        if outcome.state in (FINISHED, DIFFERS):
            found.append(Prediction(scheduled, outcome, steps, 0.0, ""))
            continue
        left = max(steps - last_step(scheduled.folder), 0)
        rate, origin = rates.get(scheduled.entry, alike.get(_step_of(scheduled))), MEASURED
        if rate is None and steps:
            rate, origin = by_flops.seconds_per_step(scheduled), BY_FLOPS
        seconds = rate * left + overhead if rate and steps else None
        if budget and not steps:
            seconds, origin = budget + overhead, MEASURED
        found.append(
            Prediction(
                *(scheduled, outcome, steps, seconds, UNKNOWN if seconds is None else origin)
            )
        )
    return found


def predictions_table(found: Sequence[Prediction]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells for the terminal.

    Args:
      found: from predictions.

    Returns:
      A row for each run, and the sum of what is known.
    """
    rows = [
        [
            one.scheduled.name,
            one.outcome.state,
            f"{one.steps:,}" if one.steps else "-",
            _minutes(one.seconds) if one.origin else "-",
            one.origin or "-",
        ]
        for one in found
    ]
    known = [one.seconds for one in found if one.origin and one.seconds is not None]
    unknown = sum(one.origin == UNKNOWN for one in found)
    total = _minutes(sum(known)) if known else "-"
    rows.append(["all", "", "", total, f"{unknown} unknown" if unknown else ""])
    return ["run", "state", "steps", "minutes left", "from"], rows


class _ByFlops:
    """Seconds of a step from its FLOPs and the speed at which others are computed here."""

    def __init__(self, runs, rates, flops_of):
        self._flops_of, self._known = flops_of, {}
        self._measured = [run for run in runs if run.entry in rates]
        self._rates, self._speed = rates, None

    def seconds_per_step(self, scheduled: Scheduled) -> float | None:
        """None where nothing is measured, or FLOPs are not to be counted."""
        if self._flops_of is None or not self._measured:
            return None
        if self._speed is None:
            one_each = {run.entry: run for run in reversed(self._measured)}
            some = list(one_each.values())[-_MOST_TRACED:]
            self._speed = statistics.median(
                self._rates[run.entry] / self._flops(run) for run in some
            )
        return self._speed * self._flops(scheduled)

    def _flops(self, scheduled):
        key = _step_of(scheduled)
        if key not in self._known:
            self._known[key] = self._flops_of(scheduled.config)
        return self._known[key]


def _step_of(scheduled: Scheduled) -> str:
    """All fields but the seed and the number of steps."""
    fields = scheduled.config.to_dict()
    fields["seed"], fields["train"]["steps"] = 0, 0
    return json.dumps(fields, sort_keys=True)


def _rates(results: Sequence[Result]) -> dict[str, float]:
    """Seconds of a step by entry, the median over its runs."""
    found: dict[str, list[float]] = {}
    for result in results:
        if result.seconds_per_step:
            found.setdefault(result.entry, []).append(result.seconds_per_step)
    return {entry: statistics.median(own) for entry, own in found.items()}


def _outcome(scheduled: Scheduled) -> Outcome:
    """How a run stands, also where its folder is damaged."""
    try:
        return outcome_of(scheduled)
    except (ValueError, OSError) as error:
        return Outcome(FAILED, str(error))


def _minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 60:,.1f}"
