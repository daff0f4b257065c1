"""Plots over the runs of a suite; a colour, beyond eight with a dash and a symbol, is an entry."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go

from mq_jax.report.curves import Curve, curve, thinned
from mq_jax.report.durations import elapsed
from mq_jax.report.figures import Figure, dash, plain, symbol, symbols_in_words, to_json
from mq_jax.report.names import METRICS
from mq_jax.report.sections import Section
from mq_jax.runs.differing import differing_fields
from mq_jax.suites.results import ERRORS, Result, Results

# Between the extremes of K; below this a plot against it has nothing to show.
_LEAST_FACTOR = 2
_REM_PER_ENTRY = 1.3


def sections(results: Results) -> list[Section]:
    """The sections of the page, those with anything to plot.

    Args:
      results: of a suite.

    Returns:
      Quality over steps and time, every seed, the use of the codebook.
    """
    error, label = results.error, METRICS[results.error].label
    quality = [
        _curves(results, error, _over_steps, "step", f"{label} over steps", _OVER_STEPS),
        _curves(results, error, _over_time, "minutes in steps", f"{label} over time", _OVER_TIME),
        *(_seeds(results, name) for name in ERRORS if name in results.metrics),
    ]
    codes = [
        _curves(results, "usage", _over_steps, "step", "Usage over steps", _USAGE, percent=True),
        _pairs(results, "usage", "mse", "MSE against usage", _AGAINST_USAGE),
        _against_size(results, "usage", "Usage against K", _AGAINST_SIZE),
        _against_size(results, "perplexity", "Perplexity against K", _PERPLEXITY),
    ]
    found = [
        (
            "quality",
            "Quality and time",
            "On the evaluation set; a line or a dot is a run.",
            quality,
        ),
        ("codebook", "Codebook", "How much of the codebook is in use.", codes),
    ]
    drawn = [
        Section(name, title, lead, {"": [figure for figure in figures if figure]}, halves=True)
        for name, title, lead, figures in found
    ]
    return [section for section in drawn if section.groups[""]]


_OVER_STEPS = "At equal steps an entry that takes longer for each of them is not at a disadvantage."
_OVER_TIME = (
    "At equal time, compilation and evaluations left out. The learning rate falls to 0 at the end "
    "of each run, so that only ends compare: where budgets are of steps, runs end at different "
    "times."
)
_SEEDS = "Every seed; what lies within the spread of one entry's dots does not tell entries apart."
_USAGE = "Share of codes that occur at all in the evaluation set."
_AGAINST_USAGE = "At the best step of each run. More codes in use need not mean a lower error."
_JOINED = "A line, in the colour of the first, joins the means of entries that differ in K alone."
_AGAINST_SIZE = "Share of K codes that occur in the evaluation set; logarithmic axis of K."
_PERPLEXITY = "As many equally frequent codes would carry as much; logarithmic axes."


def _over_steps(run: Result, name: str) -> Curve:
    return curve(run.run.rows, f"eval/{name}")


def _over_time(run: Result, name: str) -> Curve:
    """The curve of a metric over minutes in training steps."""
    points = curve(run.run.rows, f"eval/{name}")
    time = elapsed(run.run.rows, run.run.config["train.batch_size"])
    # Without the evaluation before the first step, and those before the first rate.
    known = points.steps >= (time.steps[0] if len(time.steps) else np.inf)
    steps = points.steps[known]
    return Curve(np.interp(steps, time.steps, time.values) / 60, points.values[known])


def _curves(
    results: Results,
    name: str,
    of_run: Callable[[Result, str], Curve],
    axis: str,
    title: str,
    caption: str,
    *,
    percent: bool = False,
) -> Figure | None:
    """A line for each run."""
    traces = []
    for run in results.runs:
        points = of_run(run, name)
        # The evaluation of what is not trained yet would stretch the axis.
        kept = points.steps > 0
        points = thinned(Curve(points.steps[kept], points.values[kept]))
        if np.isfinite(points.values).any():
            traces.append(_trace(results, run, points.steps, points.values, "lines+markers"))
    layout = {"xaxis": {"title": {"text": axis}}, "hovermode": "closest", "showlegend": False}
    layout["yaxis"] = {"tickformat": ".0%"} if percent else {"type": "log"}
    caption = caption if percent else f"{caption} Logarithmic axis."
    return Figure(title, caption, to_json(traces, layout)) if traces else None


def _seeds(results: Results, name: str) -> Figure | None:
    """A row for each entry with a dot for each seed."""
    runs = [run for run in results.runs if run.is_finished and name in run.values]
    if not runs:
        return None
    traces = [_trace(results, run, [run.values[name]], [plain(run.entry)]) for run in runs]
    entries = [plain(entry) for entry in reversed(results.entries)]
    layout = {
        "xaxis": {"title": {"text": METRICS[name].label}},
        # A label for each, however many there are.
        "yaxis": {"type": "category", "categoryarray": entries, "dtick": 1},
        "hovermode": "closest",
        "showlegend": False,
    }
    height = 5 + _REM_PER_ENTRY * len(entries)
    title = f"{METRICS[name].label}, every seed"
    return Figure(title, _of_points(results, _SEEDS), to_json(traces, layout), height)


def _pairs(results: Results, across: str, up: str, title: str, caption: str) -> Figure | None:
    """One metric against another, a dot for each run."""
    runs = [run for run in results.runs if run.is_finished and {across, up} <= run.values.keys()]
    traces = [_trace(results, run, [run.values[across]], [run.values[up]]) for run in runs]
    layout = {
        "xaxis": {"title": {"text": METRICS[across].label}, "tickformat": ".0%"},
        "yaxis": {"title": {"text": METRICS[up].label}},
        "hovermode": "closest",
        "showlegend": False,
    }
    caption = _of_points(results, caption)
    return Figure(title, caption, to_json(traces, layout)) if traces else None


def _against_size(results: Results, name: str, title: str, caption: str) -> Figure | None:
    """A metric against K; None where all have about one K."""
    runs = [run for run in results.runs if run.is_finished and name in run.values]
    sizes = sorted({run.codes for run in runs})
    if not sizes or sizes[-1] < _LEAST_FACTOR * sizes[0]:
        return None
    lines = [_joined(results, family, name) for family in _families(results, runs)]
    traces = [_trace(results, run, [run.codes], [run.values[name]]) for run in runs]
    ticks = {"tickvals": sizes, "ticktext": [f"{size:,}" for size in sizes]}
    layout = {
        "xaxis": {"title": {"text": "K"}, "type": "log", **ticks},
        "yaxis": {"tickformat": ".0%"} if name == "usage" else {"type": "log"},
        "hovermode": "closest",
        "showlegend": False,
    }
    caption = _of_points(results, f"{caption} {_JOINED}" if lines else caption)
    return Figure(title, caption, to_json([*lines, *traces], layout))


def _families(results: Results, runs: Sequence[Result]) -> list[list[Result]]:
    """Runs of several entries that differ in K, and in seeds, alone."""
    families: list[list[Result]] = []
    for run in sorted(runs, key=lambda run: results.entries.index(run.entry)):
        for family in families:
            configs = {"first": family[0].run.config, "own": run.run.config}
            if differing_fields(configs).keys() <= {"codebook.size", "seed"}:
                family.append(run)
                break
        else:
            families.append([run])
    return [family for family in families if len({run.codes for run in family}) > 1]


def _joined(results: Results, family: Sequence[Result], name: str) -> go.Scatter:
    """A line along K over the means of a family, in the colour of its first entry."""
    values: dict[int, list[float]] = {}
    for run in sorted(family, key=lambda run: run.codes):
        values.setdefault(run.codes, []).append(run.values[name])
    number = results.entries.index(family[0].entry)
    return go.Scatter(
        x=list(values),
        y=[statistics.mean(own) for own in values.values()],
        mode="lines",
        line={"width": 1.6, "dash": dash(number)},
        name=plain(f"mean of each K, as {family[0].entry}"),
        meta={"colour": number},
    )


def _of_points(results: Results, caption: str) -> str:
    """A caption, and which symbols are whose."""
    return f"{caption} {symbols_in_words(len(results.entries))}".strip()


def _trace(results: Results, run: Result, x: Sequence, y: Sequence, mode: str = "markers"):
    """A run in its entry's colour; hollow where it is not finished."""
    number = results.entries.index(run.entry)
    return go.Scatter(
        x=list(x),
        y=list(y),
        name=plain(f"{run.entry} seed {run.seed}"),
        mode=mode,
        line={"width": 1.6, "dash": dash(number)},
        marker={"size": 7, "symbol": f"{symbol(number)}{'' if run.is_finished else '-open'}"},
        meta={"colour": number},
    )
