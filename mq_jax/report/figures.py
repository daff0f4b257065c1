"""Plots as Plotly figures without colours: the page's script gives them those of its theme."""

import html
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from mq_jax.report.curves import MOST_POINTS, curve, names_in, spans_decades, thinned
from mq_jax.report.names import label, rank, reading
from mq_jax.report.runs import Run

# Of the theme.
COLOURS = 8

_DASHES = ("solid", "dot", "dash", "dashdot")
_DASH_WORDS = ("solid", "dotted", "dashed", "dash-dotted")
_SYMBOLS = ("circle", "square", "diamond", "star")


class Figure(NamedTuple):
    """A plot and the words around it.

    Attributes:
      title: above.
      caption: below, how to read it.
      json: of the plot; each trace's `meta.colour` is a number in the theme's colours or "grey".
      height: of the plot, rem; 0: that of all plots of its section.
    """

    title: str
    caption: str
    json: str
    height: float = 0.0


def dash(number: int) -> str:
    """How the line of a run is dashed, so that colours may come again: a dash for each eight."""
    return _DASHES[number // COLOURS % len(_DASHES)]


def symbol(number: int) -> str:
    """The symbol of a run's points, which goes with its dash."""
    return _SYMBOLS[number // COLOURS % len(_SYMBOLS)]


def symbols_in_words(count: int) -> str:
    """How symbols go with the dashes of the line at the top of a page.

    Args:
      count: of runs or entries.

    Returns:
      A sentence; "" where colours tell all of them apart.
    """
    shown = -(-count // COLOURS)
    pairs = list(zip(_SYMBOLS, _DASH_WORDS, strict=True))[:shown]
    (name, dash), *others = [(f"{symbol}s", dash) for symbol, dash in pairs]
    told = f"{name.capitalize()} are {dash} in the line at the top"
    told += "".join(f", {name} {dash}" for name, dash in others)
    return f"{told}." if others else ""


def curve_figure(
    runs: Sequence[Run],
    lines: dict[str, str],
    *,
    title: str,
    caption: str,
    percent: str = "",
    symmetric: bool = False,
) -> Figure | None:
    """Metrics over the steps, of all runs in one plot; a colour is a run, or a metric of one run.

    Args:
      runs: at least one.
      lines: what a metric is called in the plot, by its logged name.
      title: of the figure.
      caption: how to read it; what the plot does with the points is added.
      percent: how values that are shares are written, ".2%" say; "" for others.
      symmetric: whether the axis goes from -1 to 1.

    Returns:
      A Figure, or None where no run has any of the metrics.
    """
    drawn = [
        (number, run, place, name, curve(run.rows, name))
        for number, run in enumerate(runs)
        for place, name in enumerate(lines)
    ]
    drawn = [entry for entry in drawn if np.isfinite(entry[-1].values).any()]
    if not drawn:
        return None
    logarithmic = spans_decades([entry[-1] for entry in drawn]) and not (percent or symmetric)
    traces = []
    for number, run, place, name, points in drawn:
        colour, dash = (number, place) if len(runs) > 1 else (place, 0)
        words = [run.name] * (len(runs) > 1) + [lines[name]] * (len(lines) > 1 or len(runs) == 1)
        if name.startswith("eval/") and run.best is not None:
            traces.append(_best_point(run, name, colour))
        traces.append(_line(thinned(points), ", ".join(words), colour, _DASHES[dash % 4]))
    # What is named first is drawn last, on top.
    traces.reverse()
    layout = {"xaxis": {"title": {"text": "step"}}, "hovermode": "x unified"}
    layout["yaxis"] = _value_axis(percent, symmetric, logarithmic)
    # The key of several runs stands once, at the top of the page.
    layout["showlegend"] = len(runs) == 1 and len(drawn) > 1
    return Figure(title, _told(caption, lines, drawn, logarithmic), to_json(traces, layout))


def figures_by_prefix(runs: Sequence[Run], without: Sequence[str]) -> dict[str, list[Figure]]:
    """A plot for each metric that has none yet.

    Args:
      runs: at least one.
      without: logged names that are drawn elsewhere.

    Returns:
      Figures by what stands before the "/" in the name.
    """
    names = dict.fromkeys(name for run in runs for name in names_in(run.rows))
    ordered = sorted(set(names) - set(without), key=lambda name: (name.partition("/")[0], name))
    found = {}
    for prefix, group in itertools.groupby(ordered, key=lambda name: name.partition("/")[0]):
        for name in sorted(group, key=rank):
            share = ".2%" if "accuracy" in name or name.endswith(("clipped", "_wait")) else ""
            figure = curve_figure(
                runs, {name: label(name)}, title=label(name), caption=reading(name), percent=share
            )
            found.setdefault(prefix, []).append(figure)
    return found


def to_json(traces: Sequence[go.Scatter], layout: dict) -> str:
    """A plot as JSON that may stand inside a <script> element."""
    # An empty template, since Plotly's own would put its colours over the theme's.
    figure = go.Figure(traces, {"template": go.layout.Template(), **layout})
    return figure.to_json().replace("<", "\\u003c")


def plain(text: str) -> str:
    """Text that Plotly shows as it is; it would take tags in names for markup."""
    return html.escape(text, quote=False)


def _line(points, name, colour, dash):
    steps = points.steps.astype(np.int32)
    # A lone point has no line.
    mode = "lines" if len(steps) > 1 else "markers"
    return go.Scatter(
        x=steps,
        y=points.values.astype(np.float32),
        name=plain(name),
        mode=mode,
        line={"width": 1.6 if len(steps) < 500 else 1, "dash": dash},
        connectgaps=False,
        meta={"colour": colour},
    )


def _value_axis(percent, symmetric, logarithmic):
    if logarithmic:
        # Plotly writes powers a quarter larger than other ticks.
        powers = {"exponentformat": "power", "tickfont": {"size": 10}}
        return {"type": "log", "dtick": 1, **powers}
    if percent:
        return {"tickformat": ".0%", "hoverformat": percent, "rangemode": "tozero"}
    return {"range": [-1.05, 1.05]} if symmetric else {}


def _best_point(run, name, colour):
    """The best step on the curve of an evaluation's metric."""
    return go.Scatter(
        x=[run.best["step"]],
        y=[run.best.get(name)],
        mode="markers",
        marker={"size": 9, "symbol": "circle"},
        hoverinfo="skip",
        showlegend=False,
        meta={"colour": colour},
    )


def _told(caption, lines, drawn, logarithmic):
    """The caption, and what the plot does with the points."""
    words = [caption]
    there = {name: _DASH_WORDS[place % 4] for _, _, place, name, _ in drawn}
    if len({number for number, *_ in drawn}) > 1 and len(there) > 1:
        dashes = "; ".join(f"{dash}: {lines[name]}" for name, dash in there.items())
        words.append(f"{dashes[0].upper()}{dashes[1:]}.")
    if logarithmic:
        words.append("Logarithmic axis.")
    longest = max(len(points.steps) for *_, points in drawn)
    if longest > MOST_POINTS:
        words.append(
            f"At most {MOST_POINTS:,} of {longest:,} points are drawn; ends, peaks and gaps stay."
        )
    return " ".join(word for word in words if word)
