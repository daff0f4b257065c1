"""What the runs in the folder of a suite have come to, whoever trained them and where."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mq_jax.evaluation.protocol import unlike
from mq_jax.report.durations import elapsed, seconds_per_step
from mq_jax.report.names import METRICS
from mq_jax.report.runs import Run, read_runs
from mq_jax.report.tables import best_metrics
from mq_jax.runs.stages import is_prior
from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import TEXT, read_json
from mq_jax.suites.outcome import (
    ABSENT,
    DIFFERS,
    FINISHED,
    Outcome,
    outcome_in,
    read_ending,
)
from mq_jax.suites.schedule import run_folder
from mq_jax.suites.suite import RESERVED, Suite

FILE = "suite.json"

# Positive errors, of which ratios make sense; bits have those of nats.
ERRORS = tuple(n for n, metric in METRICS.items() if metric.better < 0 and "bits_" not in n)
_SCHEMA = {"name": TEXT, "reference": TEXT, "entries": [TEXT]}
_SEED = re.compile(r"seed-(\d+)")


class Result(NamedTuple):
    """A run of a suite.

    Attributes:
      entry: its name.
      seed: of it.
      run: all that its folder tells.
      outcome: how it stands.
      values: metrics by name: those of the best evaluation during training, and what
        evaluation.json measured of the same step beside them.
      seconds_per_step: at the median rate; None where it is not known.
      seconds: in training steps; None likewise.
      wall_seconds: of all its processes, compilation and evaluations included; None likewise.
    """

    entry: str
    seed: int
    run: Run
    outcome: Outcome
    values: dict[str, float]
    seconds_per_step: float | None
    seconds: float | None
    wall_seconds: float | None

    @property
    def is_finished(self) -> bool:
        """Whether it counts in means."""
        return self.outcome.state == FINISHED

    @property
    def step(self) -> int:
        """Of the last line of its log."""
        return self.run.rows[-1]["step"] if self.run.rows else 0

    @property
    def flops(self) -> float | None:
        """Of an inner update on one device, as XLA counts them, the mean where steps alternate."""
        cost, config = self.run.cost, self.run.config
        if cost is None or cost.flops is None or is_prior(config):
            return cost.flops if cost else None
        # A step of both levels takes so many updates as one; the others are of the inner alone.
        every = config["train.inner_updates"]
        alone = every - config["train.unroll"]
        if alone and cost.inner_flops is None:
            return None
        return (cost.flops + alone * (cost.inner_flops or 0.0)) / every

    @property
    def codes(self) -> int | None:
        """K; None of a prior, whose configuration need not say it."""
        return self.run.config.get("codebook.size")


class Results(NamedTuple):
    """The runs in the folder of a suite.

    Attributes:
      name: of the suite; "" where the folder does not say.
      entries: names in the order of the tables, those with a run alone.
      reference: the entry that others are compared with.
      runs: by entry and seed.
      ailments: (name of a run, sentence): what is missing from the tables, and why.
      unlike: where evaluations were made under different protocols.
      spent: seconds of all processes that have ended, by entry, those of its timing and of entries
        without a run too; None where nothing tells.
    """

    name: str
    entries: list[str]
    reference: str
    runs: list[Result]
    ailments: list[tuple[str, str]]
    unlike: list[str]
    spent: dict[str, float | None]

    def of(self, entry: str) -> list[Result]:
        """The finished runs of an entry."""
        return [run for run in self.runs if run.entry == entry and run.is_finished]

    def by_seed(self, entry: str, metric: str) -> dict[int, float]:
        """A metric of the finished runs of an entry."""
        found = {run.seed: run.values.get(metric) for run in self.of(entry)}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def metrics(self) -> list[str]:
        """The metrics that some run has, in the order of the report."""
        return [name for name in METRICS if any(name in run.values for run in self.runs)]

    @property
    def error(self) -> str:
        """The metric that says how good runs are on the way: of priors what training minimises."""
        return "nats_per_token" if is_prior(self.runs[0].run.config) else "mse"


def write_suite(folder: pathlib.Path, name: str, suite: Suite) -> None:
    """Writes `suite.json`: what the folder itself does not tell of the tables over it.

    Args:
      folder: of the suite; exists.
      name: of the suite.
      suite: any.
    """
    told = {"name": name, "reference": suite.compared_with, "entries": list(suite.entries)}
    write_atomically(folder / FILE, json.dumps(told, indent=2) + "\n")


def read_results(
    folder: pathlib.Path, reference: str = "", outcomes: Mapping[str, Outcome] | None = None
) -> Results:
    """Reads the runs below a folder: `ENTRY/seed-S`, each with its config.json.

    Args:
      folder: of the suite.
      reference: the entry that others are compared with; "": the suite's, else the first.
      outcomes: of runs by name, where more is known than their folders tell: what is of another
        configuration is left out.

    Returns:
      Results with at least one run.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: the reference has none, or suite.json is damaged.
    """
    told = read_told(folder)
    found = _folders(folder)
    order = [entry for entry in told["entries"] if entry in found]
    order += sorted(set(found) - set(order))
    runs, ailments = [], []
    for entry in order:
        for seed in sorted(found[entry]):
            own = (outcomes or {}).get(f"{entry} seed {seed}")
            _add(runs, ailments, entry, seed, run_folder(folder, entry, seed), own)
    entries = [entry for entry in order if any(run.entry == entry for run in runs)]
    if not entries:
        raise FileNotFoundError(
            f"{folder} has no run of a suite yet; expected folders ENTRY/seed-S with a "
            "config.json, or a --suite to train."
        )
    if reference and reference not in entries:
        raise ValueError(
            f"--reference is {reference!r}; expected one of {', '.join(entries)}, which have runs."
        )
    chosen = reference or (told["reference"] if told["reference"] in entries else entries[0])
    cards = {run.run.name: run.run.evaluation for run in runs if run.run.evaluation}
    differing = unlike(cards) if len(cards) > 1 else []
    spent = {entry: _spent(folder, entry, found[entry]) for entry in order}
    return Results(told["name"], entries, chosen, runs, ailments, differing, spent)


def read_told(folder: pathlib.Path) -> dict[str, Any]:
    """Reads `suite.json`.

    Args:
      folder: of a suite.

    Returns:
      As write_suite writes it, all empty where there is none.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        return read_json(folder / FILE, _SCHEMA)
    except FileNotFoundError:
        return {"name": "", "reference": "", "entries": []}
    except ValueError as error:
        raise ValueError(
            f"{folder / FILE} is damaged ({error}); remove it, or start the suite again."
        ) from error


def _folders(folder: pathlib.Path) -> dict[str, list[int]]:
    """The seeds that have a folder, by entry."""
    found: dict[str, list[int]] = {}
    for path in folder.glob("*/seed-*"):
        seed = _SEED.fullmatch(path.name)
        if seed and path.is_dir() and path.parent.name not in RESERVED:
            found.setdefault(path.parent.name, []).append(int(seed[1]))
    return found


def _spent(folder: pathlib.Path, entry: str, seeds: Sequence[int]) -> float | None:
    """Seconds of the processes of an entry, its timing included."""
    places = [run_folder(folder, entry, seed) for seed in seeds]
    endings = [read_ending(place) for place in (*places, folder / RESERVED[0] / entry)]
    known = [ending.seconds for ending in endings if ending]
    return sum(known) if known else None


def _add(
    runs: list[Result],
    ailments: list[tuple[str, str]],
    entry: str,
    seed: int,
    folder: pathlib.Path,
    known: Outcome | None,
) -> None:
    """Adds the run in a folder to the runs, and to the ailments what is wrong with it."""
    name = f"{entry} seed {seed}"
    if known is not None and known.state != FINISHED:
        ailments.append((name, _sentence(known)))
        if known.state == DIFFERS:
            return
    try:
        (run,) = read_runs([folder])
    except FileNotFoundError:
        ending = read_ending(folder)
        if known is None:
            ailments.append((name, _sentence(Outcome(ABSENT, ending.error if ending else ""))))
        return
    except ValueError as error:
        ailments.append((name, str(error)))
        return
    outcome = known or outcome_in(folder, run.config["train.steps"])
    if known is None and outcome.state != FINISHED:
        ailments.append((name, _sentence(outcome)))
    runs.append(_result(entry, seed, folder, run._replace(name=f"{entry}/seed-{seed}"), outcome))


def _sentence(outcome: Outcome) -> str:
    """How a run stands that is not finished."""
    told = f"{outcome.state}: {outcome.told}" if outcome.told else outcome.state
    return f"{told[0].upper()}{told[1:].removesuffix('.')}."


def _result(entry: str, seed: int, folder: pathlib.Path, run: Run, outcome: Outcome) -> Result:
    batch, ending = run.config["train.batch_size"], read_ending(folder)
    seconds = elapsed(run.rows, batch).values
    return Result(
        entry,
        seed,
        run,
        outcome,
        _values(run),
        seconds_per_step(run.rows, batch),
        float(seconds[-1]) if len(seconds) else None,
        ending.seconds if ending else None,
    )


def _values(run: Run) -> dict[str, float]:
    """Metrics of the best step; those of training before those of evaluation.json."""
    measured = {}
    if run.best and run.evaluation and run.evaluation["run"]["step"] == run.best["step"]:
        measured = run.evaluation["metrics"]
    found = {**measured, **best_metrics(run)}
    return {name: value for name, value in found.items() if name in METRICS and value is not None}
