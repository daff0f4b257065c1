"""Numbers of runs beside one another: metrics, configuration, environment, cost."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from mq_jax.report.durations import elapsed, seconds_per_step
from mq_jax.report.names import METRICS, number
from mq_jax.report.runs import Run
from mq_jax.runs.cost import Cost
from mq_jax.runs.differing import ABSENT, differing_fields, shown
from mq_jax.runs.stages import is_prior
from mq_jax.runs.workdir import flat
from mq_jax.terminal.escaping import visible


class Cell(NamedTuple):
    """A cell; `mark` is "best", "differs" or "" ."""

    text: str
    mark: str = ""


class Table(NamedTuple):
    """A table.

    Attributes:
      title: above.
      heads: of the columns; the first is that of the rows' names.
      rows: the first cell of each is its name.
      note: below; may be "".
    """

    title: str
    heads: list[str]
    rows: list[list[Cell]]
    note: str = ""


def evaluated(run: Run) -> tuple[dict[str, float], str]:
    """A run's best numbers and where they come from.

    Args:
      run: any.

    Returns:
      Metrics by name without the prefix, from evaluation.json if it is there, else from the best
      line of training; and a phrase.
    """
    if run.evaluation is not None:
        data = run.evaluation["protocol"].get("data", {})
        images = f"{data['images']:,} images" if "images" in data else "images"
        where = f"{images} of {data.get('source', 'an unnamed set')} {data.get('split', '')}"
        return run.evaluation["metrics"], f"evaluation.json: {where.strip()}"
    return (_of_row(run.best), "the evaluation during training") if run.best else ({}, "")


def metrics_table(title: str, runs: Sequence[Run], values: Sequence[Mapping[str, float]]) -> Table:
    """Metrics of several runs, the best of two or more marked.

    Args:
      title: of the table.
      runs: one a row.
      values: "step" and metrics of each run, by name without the prefix; may be empty.

    Returns:
      A Table.
    """
    names = [name for name in METRICS if any(own.get(name) is not None for own in values)]
    heads = [f"{METRICS[n].label} {'↑' if METRICS[n].better > 0 else '↓'}" for n in names]
    best = {
        name: max(METRICS[name].better * own[name] for own in values if own.get(name) is not None)
        for name in names
    }
    rows = []
    for run, own in zip(runs, values, strict=True):
        cells = [Cell(run.name), Cell(f"{own['step']:,}" if own else "–")]
        for name in names:
            value = own.get(name)
            rivals = sum(other.get(name) is not None for other in values)
            wins = value is not None and METRICS[name].better * value == best[name] and rivals > 1
            cells.append(Cell(number(name, value), "best" if wins else ""))
        rows.append(cells)
    return Table(title, ["run", "step", *heads], rows)


def last_metrics(run: Run) -> dict[str, float]:
    """Step and metrics of the last evaluation during training, by name without the prefix."""
    rows = [row for row in run.rows if any(name.startswith("eval/") for name in row)]
    return {"step": rows[-1]["step"], **_of_row(rows[-1])} if rows else {}


def best_metrics(run: Run) -> dict[str, float]:
    """Step and metrics of the best evaluation during training, by name without the prefix."""
    return {"step": run.best["step"], **_of_row(run.best)} if run.best else {}


def measured_metrics(run: Run) -> dict[str, float]:
    """Step and metrics of evaluation.json."""
    if run.evaluation is None:
        return {}
    return {"step": run.evaluation["run"]["step"], **run.evaluation["metrics"]}


def configuration_tables(run: Run) -> tuple[Table, Table | None]:
    """All fields of a configuration, and those that are not the defaults.

    Args:
      run: any.

    Returns:
      The table of all, and that of the differing ones, None where the defaults are not at hand.
    """
    fields = sorted(run.config.items())
    every = [[Cell(name), Cell(visible(shown(value)))] for name, value in fields]
    whole = Table(f"All {len(every)} fields", ["field", "value"], every)
    defaults = _defaults("configs.prior" if is_prior(run.config) else "configs.base")
    if defaults is None:
        return whole, None
    rows = [
        [Cell(name), *(Cell(visible(shown(v))) for v in (value, defaults.get(name, ABSENT)))]
        for name, value in fields
        if name not in defaults or defaults[name] != value
    ]
    title = "What is not the default"
    return whole, Table(title, ["field", "value", "default"], rows)


def differing_table(runs: Sequence[Run]) -> Table | None:
    """The fields of the configuration in which runs differ, a column each.

    Args:
      runs: any.

    Returns:
      A Table; None for one run.
    """
    if len(runs) < 2:
        return None
    fields = differing_fields({run.name: run.config for run in runs})
    rows = [
        [Cell(name), *(Cell(visible(shown(value)), "differs") for value in values)]
        for name, values in fields.items()
    ]
    return Table("Fields that differ", ["", *(run.name for run in runs)], rows)


def comparison_table(title: str, runs: Sequence[Run], of_run: Callable) -> Table:
    """Fields of several runs, a column each; those that differ are marked.

    Args:
      title: of the table.
      runs: one a column.
      of_run: run -> fields by dotted name, or None where they are not known.

    Returns:
      A Table.
    """
    fields = [of_run(run) or {} for run in runs]
    rows = []
    for name in dict.fromkeys(name for own in fields for name in own):
        texts = [visible(shown(own.get(name, ABSENT))) for own in fields]
        mark = "differs" if len(set(texts)) > 1 else ""
        rows.append([Cell(name), *(Cell(text, mark) for text in texts)])
    return Table(title, ["", *(run.name for run in runs)], rows)


def cost_table(runs: Sequence[Run]) -> Table | None:
    """What runs took, a column each; None where nothing is known."""
    fields = [cost_fields(run) for run in runs]
    names = dict.fromkeys(name for own in fields for name in own)
    cells = [[Cell(name), *(Cell(own.get(name, "–")) for own in fields)] for name in names]
    note = "Compilation, evaluations and checkpoints are not in the time."
    return Table("Cost", ["", *(run.name for run in runs)], cells, note) if cells else None


def environment_fields(run: Run) -> dict[str, Any] | None:
    """The environment of a run by dotted name."""
    return None if run.environment is None else flatten_dict(run.environment, sep=".")


def protocol_fields(run: Run) -> dict[str, Any] | None:
    """The protocol of a run's evaluation by dotted name."""
    return None if run.evaluation is None else flatten_dict(run.evaluation["protocol"], sep=".")


def cost_fields(run: Run) -> dict[str, str]:
    """What a run took, from its own files.

    Args:
      run: any.

    Returns:
      Phrases by name; what is not known is left out.
    """
    fields = {}
    if run.rows:
        steps, batch = run.rows[-1]["step"], run.config["train.batch_size"]
        fields["steps"] = f"{steps:,}"
        fields["images of the inner level"] = f"{steps * batch:,}"
        fields |= _time_fields(run, batch)
    return fields if run.cost is None else fields | _step_fields(run.cost)


def _step_fields(cost: Cost) -> dict[str, str]:
    """One step, and what it carries."""
    sizes = cost.parameters
    fields = {
        "parameters": f"{sum(sizes.values()):,}",
        **{f"parameters of the {part}": f"{size:,}" for part, size in sizes.items()},
        "devices": str(cost.devices),
        "state of a device": f"{cost.state_bytes_per_device / 2**20:,.1f} MiB",
        "compilation at the last start": f"{cost.compile_seconds:,.1f} s",
    }
    if cost.flops is not None:
        fields["FLOPs of a step, a device"] = f"{cost.flops / 1e9:,.2f} GFLOP"
    if cost.inner_flops:
        told = f"{cost.inner_flops / 1e9:,.2f} GFLOP"
        fields["FLOPs of a step of the inner level alone, a device"] = told
    return fields


def _time_fields(run, batch):
    """Speed and hours, from the rate of each window."""
    step, seconds = seconds_per_step(run.rows, batch), elapsed(run.rows, batch).values
    if step is None:
        return {}
    hours = float(seconds[-1] / 3600)
    took = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
    return {
        "images a second, median": f"{batch / step:,.1f}",
        "time in training steps": took,
    }


def _of_row(row):
    return {n.removeprefix("eval/"): v for n, v in row.items() if n.startswith("eval/")}


def _defaults(module: str) -> dict[str, Any] | None:
    """The defaults by dotted name; configs/ is beside the package, and not always there."""
    try:
        config = importlib.import_module(module).get_config()
    except (ImportError, AttributeError):
        return None
    # As config.json has them: tuples are lists there.
    return flat(json.loads(json.dumps(config.to_dict())))
