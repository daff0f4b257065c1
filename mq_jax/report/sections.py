"""The sections of the page that hold plots."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mq_jax.evaluation.code_use import USAGE
from mq_jax.report.codes import codeword_figure, histogram_figure
from mq_jax.report.curves import curve, names_in
from mq_jax.report.figures import Figure, curve_figure, figures_by_prefix
from mq_jax.report.names import METRICS, PREFIXES, reading
from mq_jax.report.runs import Run


class Section(NamedTuple):
    """A part of the page with plots.

    Attributes:
      id: of its element.
      title: its head.
      lead: a sentence; may be "".
      groups: figures by their own head, "" for none.
      halves: whether two figures fill a row, not three.
    """

    id: str
    title: str
    lead: str
    groups: dict[str, list[Figure]]
    halves: bool = False


def plotted(runs: Sequence[Run]) -> list[Section]:
    """The sections with anything to plot, in their order.

    Args:
      runs: one or more.

    Returns:
      Quality, codebook, gradients and all other curves, as far as the runs have them.
    """
    drawn = [_quality(runs), _codebook(runs), _gradients(runs), _rest(runs)]
    return [section for section in drawn if section.groups]


def _quality(runs: Sequence[Run]) -> Section:
    """The metrics of evaluations over training."""
    there = {name for run in runs for name in names_in(run.rows)}
    figures = [
        curve_figure(
            runs,
            {f"eval/{name}": metric.label},
            title=metric.label,
            caption=reading(f"eval/{name}"),
        )
        for name, metric in METRICS.items()
        if name not in ("usage", "perplexity") and f"eval/{name}" in there
    ]
    lead = "On the evaluation set during training; the dot is the step that is kept as the best."
    return Section("quality", "Quality over training", lead, {"": figures} if figures else {})


def _codebook(runs: Sequence[Run]) -> Section:
    """Use of the codes, and the codewords."""
    lines = {"eval": "evaluation set", "inner": "training window"}
    figures = [
        curve_figure(
            runs,
            {f"{prefix}/usage": words for prefix, words in lines.items()},
            title="Usage",
            caption="Share of codes that occur at all: in the whole evaluation set, and in the "
            "training steps between two lines of the log. A fall means that codes die.",
            percent=USAGE,
        ),
        curve_figure(
            runs,
            {f"{prefix}/perplexity": words for prefix, words in lines.items()},
            title="Perplexity",
            caption="As many equally frequent codes would carry as much information; far below "
            "the number of codes in use, a few of them carry most.",
        ),
        histogram_figure(runs),
        *(codeword_figure(run, len(runs) > 1) for run in runs),
    ]
    figures = [figure for figure in figures if figure is not None]
    lead = "Whether the codebook is used, and how evenly."
    return Section("codebook", "Codebook", lead, {"": figures} if figures else {}, halves=True)


def _gradients(runs: Sequence[Run]) -> Section:
    """The parts of the codebook's gradient."""
    figures = [
        curve_figure(
            runs,
            {"outer/direct_norm": "direct", "outer/indirect_norm": "indirect"},
            title="Norms of the two parts",
            caption="Direct: the outer loss at the new auto-encoder; indirect: through the step "
            "that the auto-encoder took." + _ratio_in_words(runs),
        ),
        curve_figure(
            runs,
            {"outer/direct_indirect_cosine": "cosine"},
            title="Cosine between them",
            caption="Near 1 the indirect part only lengthens the step; near 0 it points in a "
            "direction of its own; below 0 it holds the direct part back.",
            symmetric=True,
        ),
        curve_figure(
            runs,
            {
                "outer/code_flip_rate": "by the codebook's update",
                "outer/probe_flip_rate": "between the probes",
            },
            title="Codes that flip",
            caption="Share of codes of the outer batch that an update of the codebook reassigns. "
            "Derivatives hold the codes fixed, so they are trusted where this is small.",
            percent=".2%",
        ),
    ]
    figures = [figure for figure in figures if figure is not None]
    lead = "What moves the codebook: the direct part of its gradient and the hyper-gradient proper."
    return Section("gradients", "The two levels", lead, {"": figures} if figures else {})


def _rest(runs: Sequence[Run]) -> Section:
    """Every other metric, by its prefix."""
    elsewhere = [f"eval/{name}" for name in METRICS] + ["inner/usage", "inner/perplexity"]
    elsewhere += [f"outer/{name}" for name in ("direct_norm", "indirect_norm", "code_flip_rate")]
    elsewhere += ["outer/direct_indirect_cosine", "outer/probe_flip_rate"]
    found = figures_by_prefix(runs, elsewhere)
    order = [*PREFIXES, *(prefix for prefix in found if prefix not in PREFIXES)]
    groups = {PREFIXES.get(p, p): found[p] for p in order if p in found}
    lead = "Means over the steps between two lines of the log."
    return Section("curves", "All other curves", lead, groups)


def _ratio_in_words(runs: Sequence[Run]) -> str:
    """How large the indirect part is at the end of the only run."""
    parts = [curve(runs[0].rows, f"outer/{part}_norm") for part in ("direct", "indirect")]
    if len(runs) > 1 or len(parts[0].values) != len(parts[1].values):
        return ""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = parts[1].values / parts[0].values
    ratios = ratios[-max(1, len(ratios) // 10) :]
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return ""
    return f" Over the last tenth the indirect part is {np.median(ratios):.2g} of the direct one."
