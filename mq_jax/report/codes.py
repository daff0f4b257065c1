"""Plots of a codebook: how often codes occur, and where the codewords lie."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from mq_jax.evaluation.code_use import codebook_of, few_codes, usage_in_words
from mq_jax.report.figures import Figure, plain, to_json
from mq_jax.report.runs import Run
from mq_jax.runs.snapshot import Snapshot

MOST_CODEWORDS = 20_000
_MOST_RANKS = 1000


def too_few(run: Run) -> str:
    """What is to be said where the best evaluation of a run found few codes in use.

    Args:
      run: any.

    Returns:
      A sentence; empty where enough are in use, and where that is not known.
    """
    use = [(run.best or {}).get(f"eval/{name}") for name in ("usage", "perplexity")]
    if None in use or not _counted(run.snapshot):
        return ""
    # Every evaluation of a run draws as many as the one that the snapshot is of.
    return few_codes(codebook_of(run.config), *use, int(run.snapshot.counts.sum()))


def histogram_figure(runs: Sequence[Run]) -> Figure | None:
    """Codes from the most to the least frequent, of all runs.

    Args:
      runs: those without a snapshot, or with no code counted, are left out.

    Returns:
      A Figure, or None where none is left.
    """
    numbered = [(i, run) for i, run in enumerate(runs) if _counted(run.snapshot)]
    if not numbered:
        return None
    share = {"title": {"text": "share of all codes picked"}, "tickformat": ".1~p"}
    size = max(len(run.snapshot.counts) for _, run in numbered)
    layout = {
        "xaxis": {"title": {"text": "codes, the most frequent first"}, "range": [0, 1.01 * size]},
        "yaxis": {"type": "log", "dtick": 1, **share},
        "showlegend": False,
    }
    traces = []
    for number, run in numbered:
        counts = np.sort(run.snapshot.counts)[::-1]
        live, total = counts[counts > 0], counts.sum()
        ranks = _ranks(len(live))
        traces.append(_histogram_trace(run, number, ranks, live[ranks], total))
    if len(numbered) == 1:
        layout |= _uniform_and_dead(numbered[0][1].snapshot)
    sentences = [_use_in_words(run, run.name if len(runs) > 1 else "") for _, run in numbered]
    reading = (
        "A flat curve means that all codes carry their part; a steep one, that few carry most. "
        "Codes right of its end are dead."
    )
    return Figure("How often codes occur", " ".join([reading, *sentences]), to_json(traces, layout))


def codeword_figure(run: Run, several: bool) -> Figure | None:
    """The codewords in the plane of their two principal components, coloured by use.

    Args:
      run: with a snapshot, else there is no figure.
      several: whether the title says whose they are.

    Returns:
      A Figure, or None.
    """
    if run.snapshot is None or len(run.snapshot.codebook) < 2:
        return None
    codebook, counts = run.snapshot.codebook.astype(np.float64), run.snapshot.counts
    points, shares = _plane(codebook)
    shown = np.arange(len(codebook))
    if len(shown) > MOST_CODEWORDS:
        shown = np.sort(np.random.default_rng(0).choice(shown, MOST_CODEWORDS, replace=False))
    dead, live = shown[counts[shown] == 0], shown[counts[shown] > 0]
    # Drawn last, over the others: the most frequent.
    live = live[np.argsort(counts[live], kind="stable")]
    size = 6 if len(shown) <= 2000 else 3.5
    traces = [_dead_trace(points, dead, size), _live_trace(points, live, counts, size)]
    axis = {"showticklabels": False, "zeroline": False, "ticks": "", "showgrid": False}
    layout = {
        "xaxis": {**axis, "title": {"text": f"first component, {shares[0]:.0%} of variance"}},
        "yaxis": {
            **axis,
            "title": {"text": f"second component, {shares[1]:.0%}"},
            "scaleanchor": "x",
        },
        "showlegend": bool(len(dead) and len(live)),
        "hovermode": "closest",
    }
    caption = (
        f"{len(codebook):,} codewords of {codebook.shape[1]} dimensions in the plane that keeps "
        f"{sum(shares):.0%} of their variance; what lies close here may be far apart in the rest. "
        "Grey ones are dead: a dead region of its own is one that encodings never reach."
    )
    if len(shown) < len(codebook):
        caption += f" A random {len(shown):,} of them are drawn."
    title = f"Codewords of {run.name}" if several else "Codewords in two dimensions"
    return Figure(title, caption, to_json(traces, layout))


def _counted(snapshot: Snapshot | None):
    return snapshot is not None and snapshot.counts.sum() > 0


def _ranks(count):
    """Ranks to draw: all of a small codebook; of a large one evenly and logarithmically spaced."""
    if count <= _MOST_RANKS:
        return np.arange(count)
    half = _MOST_RANKS // 2
    spaced = np.linspace(0, count - 1, half), np.geomspace(1, count, half) - 1
    return np.unique(np.concatenate(spaced).round().astype(int))


def _histogram_trace(run, number, ranks, counts, total):
    return go.Scatter(
        x=(ranks + 1).astype(np.int32),
        y=(counts / total).astype(np.float32),
        customdata=counts,
        hovertemplate="code %{x:,}: %{customdata:,} times, %{y:.3%}",
        name=plain(run.name),
        mode="lines",
        line={"width": 2, "shape": "hv"},
        meta={"colour": number},
    )


def _uniform_and_dead(snapshot):
    """The line of equal use, and the dead codes as an area."""
    size, live = len(snapshot.counts), int((snapshot.counts > 0).sum())
    shapes = [
        {
            "type": "line",
            **{"x0": 1, "x1": size, "y0": 1 / size, "y1": 1 / size},
            "line": {"width": 1, "dash": "dot"},
            "label": {"text": "all equally often", "textposition": "end", "yanchor": "bottom"},
        }
    ]
    if live < size:
        shapes.append(
            {
                "type": "rect",
                "yref": "paper",
                **{"x0": live, "x1": size, "y0": 0, "y1": 1},
                "line": {"width": 0},
                "layer": "below",
                "label": {
                    "text": f"dead: {usage_in_words(1 - live / size)}",
                    "textposition": "top center",
                    "padding": 8,
                },
            }
        )
    return {"shapes": shapes}


def _use_in_words(run, name):
    counts = np.sort(run.snapshot.counts)[::-1]
    size, total, dead = len(counts), counts.sum(), int((counts == 0).sum())
    half = int(np.searchsorted(np.cumsum(counts), total / 2) + 1)
    start = f"{name}: " if name else ""
    return (
        f"{start}{dead:,} of {size:,} codes ({usage_in_words(dead / size)}) do not occur among the "
        f"{total:,} of the evaluation set; the {half:,} most frequent make up half of them."
        f"{_each_in_words(run)}"
    )


def _each_in_words(run):
    """The share of codes in use of each of the J that a position has; "" for one."""
    codes, counts = codebook_of(run.config).codes, run.snapshot.counts
    if codes == 1 or len(counts) % codes:
        return ""
    shares = (counts.reshape(codes, -1) > 0).mean(axis=1)
    return f" In use of a position's {codes} codes: {', '.join(map(usage_in_words, shares))}."


def _plane(codebook):
    """Coordinates f64[K, 2] and shares of variance; a missing dimension is 0."""
    # Here, since it takes a second that every start of training would pay.
    from sklearn.decomposition import PCA

    kept = min(2, *codebook.shape)
    if not codebook.var(axis=0).any():
        return np.zeros((len(codebook), 2)), (0.0, 0.0)
    pca = PCA(kept, svd_solver="full" if len(codebook) < 1000 else "covariance_eigh")
    points = np.zeros((len(codebook), 2))
    points[:, :kept] = pca.fit_transform(codebook)
    return points, (*pca.explained_variance_ratio_.tolist(), 0.0)[:2]


def _dead_trace(points, dead, size):
    return go.Scatter(
        x=points[dead, 0].astype(np.float32),
        y=points[dead, 1].astype(np.float32),
        name="dead",
        text=[f"code {i}" for i in dead],
        hovertemplate="%{text}, dead<extra></extra>",
        mode="markers",
        marker={"size": 0.7 * size, "line": {"width": 0}},
        meta={"colour": "grey"},
    )


def _live_trace(points, live, counts, size):
    used = counts[live]
    most = max(1.0, float(np.log10(used.max()))) if len(live) else 1.0
    ticks = list(range(int(most) + 1))
    bar = {
        "title": {"text": "times picked", "side": "right", "font": {"size": 12}},
        "tickvals": ticks,
        "ticktext": [f"{10**tick:,}" for tick in ticks],
        "tickfont": {"size": 11},
        "thickness": 12,
        "outlinewidth": 0,
    }
    return go.Scatter(
        x=points[live, 0].astype(np.float32),
        y=points[live, 1].astype(np.float32),
        name="in use",
        customdata=live,
        text=[f"{count:,}" for count in used],
        hovertemplate="code %{customdata}, picked %{text} times<extra></extra>",
        mode="markers",
        marker={
            "size": size,
            "line": {"width": 0},
            "color": np.log10(used).astype(np.float32),
            "cmin": 0.0,
            "cmax": most,
            "colorbar": bar,
        },
        meta={"colour": "scale"},
    )
