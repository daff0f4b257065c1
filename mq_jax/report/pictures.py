"""Originals, reconstructions and maps of the error between them, as pictures inside a page."""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from plotly.colors import hex_to_rgb, sequential

from mq_jax.images.scale import enlarged, enlargement
from mq_jax.report.runs import Run

MOST_IMAGES = 12


class Shown(NamedTuple):
    """One run's reconstruction of an image; pictures are data URIs."""

    run: str
    reconstruction: str
    error: str
    psnr: str


class Sample(NamedTuple):
    """An original and what became of it."""

    original: str
    shown: list[Shown]


class Pictures(NamedTuple):
    """All pictures of a page.

    Attributes:
      groups: samples by the runs that share their originals.
      scale: data URI of the colour scale, from 0 to `top`.
      top: of 255 grey levels, the error at the scale's end.
      largest: the largest error.
      side: pixels of an image itself.
      enlarged: which images are, how many times, in a sentence; "" where none is.
      left_out: images of the snapshots that are not shown.
    """

    groups: list[list[Sample]]
    scale: str
    top: int
    largest: int
    side: int
    enlarged: str
    left_out: int


def pictures(runs: Sequence[Run]) -> Pictures | None:
    """The pictures of runs, all errors on one scale.

    Args:
      runs: those without a snapshot are left out.

    Returns:
      Pictures, or None where no run has an image.
    """
    runs = [run for run in runs if run.snapshot is not None and len(run.snapshot.originals)]
    if not runs:
        return None
    errors = {run.name: _errors(run.snapshot) for run in runs}
    everything = np.concatenate([error.ravel() for error in errors.values()])
    top = max(1, math.ceil(np.percentile(everything, 99.5)))
    groups, left_out = [], 0
    for sharing in _by_originals(runs):
        count = len(sharing[0].snapshot.originals)
        chosen = np.linspace(0, count - 1, min(count, MOST_IMAGES)).round().astype(int)
        left_out += count - len(chosen)
        groups.append([_sample(sharing, errors, top, int(i)) for i in chosen])
    scale = _uri(_coloured(np.arange(256)[None]))
    side = max(run.snapshot.originals.shape[2] for run in runs)
    largest = math.ceil(everything.max())
    return Pictures(groups, scale, top, largest, side, _enlarged_in_words(runs), left_out)


def _errors(snapshot):
    """Mean absolute difference of the channels, f32[N, H, W] in grey levels."""
    difference = snapshot.originals.astype(np.float32) - snapshot.reconstructions
    return np.abs(difference).mean(axis=-1)


def _enlarged_in_words(runs):
    """Which sizes of images are enlarged, and how many times."""
    sizes = sorted({run.snapshot.originals.shape[1:3] for run in runs})
    told = [
        f"{height} x {width} pixels {factor} times"
        for height, width in sizes
        if (factor := enlargement(height, width)) > 1
    ]
    return f"Enlarged without smoothing: images of {', '.join(told)}." if told else ""


def _by_originals(runs):
    """Runs in groups of equal originals."""
    groups = []
    for run in runs:
        for group in groups:
            if np.array_equal(group[0].snapshot.originals, run.snapshot.originals):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _sample(runs, errors, top, i):
    shown = []
    for run in runs:
        original, reconstruction = run.snapshot.originals[i], run.snapshot.reconstructions[i]
        levels = np.clip(errors[run.name][i] * (255 / top), 0, 255).round().astype(int)
        squared = np.mean((original.astype(np.float64) - reconstruction) ** 2)
        psnr = f"{10 * math.log10(255**2 / squared):.1f} dB" if squared else "equal"
        error = _coloured(levels)
        shown.append(Shown(run.name, _uri(enlarged(reconstruction)), _uri(enlarged(error)), psnr))
    return Sample(_uri(enlarged(runs[0].snapshot.originals[i])), shown)


def _coloured(levels):
    """Levels 0 to 255 as colours, u8[H, W, 3]: black, violet, red, yellow."""
    anchors = np.array([hex_to_rgb(colour) for colour in sequential.Inferno], np.float64)
    places = np.linspace(0, 255, len(anchors))
    table = np.stack([np.interp(np.arange(256), places, channel) for channel in anchors.T], axis=1)
    return table.round().astype(np.uint8)[levels]


def _uri(image):
    """A PNG as a data URI."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
