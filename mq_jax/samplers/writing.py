"""Drawing into a folder of samples, or what is missing of it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mq_jax.generation.sampling import Sampling
from mq_jax.samplers.conditions import class_labels, require_guidance
from mq_jax.samplers.folder import claimed, finish, is_finished, missing, write_images
from mq_jax.samplers.sampler import Sampler

VERSION = 1

# Read by a masked prior alone.
OF_MASKED = ("steps", "choice_noise")


class Draw(NamedTuple):
    """What a folder of samples is of.

    Attributes:
      count: of images.
      classes: that take turns; empty: images of no class.
      seed: of the draw.
      sampling: how tokens are drawn.
    """

    count: int
    classes: tuple[int, ...]
    seed: int
    sampling: Sampling

    @property
    def labels(self) -> np.ndarray | None:
        """i64[N], the class of each image; None where there are no classes."""
        if not self.classes:
            return None
        return np.resize(np.asarray(self.classes, np.int64), self.count)


def settings_of(sampler: Sampler, draw: Draw) -> dict[str, Any]:
    """What says of samples which they are, fit for JSON: equal ones are of equal images.

    Args:
      sampler: that draws.
      draw: what is drawn.

    Returns:
      Fields by name, those that do nothing left out.
    """
    fields = dataclasses.asdict(draw.sampling)
    if sampler.kind != "masked":
        fields = {name: value for name, value in fields.items() if name not in OF_MASKED}
    known = range(len(sampler.class_names))
    every = draw.classes == tuple(known) and bool(known)
    return {
        "version": VERSION,
        "count": draw.count,
        "seed": draw.seed,
        "classes": "all" if every else ",".join(map(str, draw.classes)) or "none",
        **fields,
        "step": sampler.step,
        "prior": sampler.fingerprint,
        "tokenizer": sampler.tokenizer.fingerprint,
    }


def write_samples(
    sampler: Sampler,
    draw: Draw,
    folder: pathlib.Path,
    *,
    batch_size: int,
    progress: Callable[[int, int], Callable[[int], Any]],
) -> int:
    """Draws into a folder, or what is missing of it.

    Args:
      sampler: that draws.
      draw: what is drawn.
      folder: of the samples, made if absent.
      batch_size: as Sampler.sample's; changes no image.
      progress: told once how many images there will be and how many are there; what it returns is
        told the number of further ones.

    Returns:
      How many images were drawn now.

    Raises:
      ValueError: the folder is of something else or of more images, or the prior cannot draw this.
      OSError: the folder cannot be written.
    """
    asked = draw.count if draw.labels is None else draw.labels
    labels = class_labels(sampler.restored, asked)
    require_guidance(sampler.restored, draw.sampling)
    with claimed(folder, settings_of(sampler, draw)):
        left = missing(folder, draw.count)
        if left:
            advance = progress(draw.count, draw.count - len(left))
            settings = {"sampling": draw.sampling, "batch_size": batch_size, "wanted": left}
            batches = sampler.batches(labels, draw.seed, **settings)
            for _ in write_images(folder, left, _numbered(batches, left)):
                advance(1)
        if left or not is_finished(folder):
            finish(folder, draw.count, draw.labels, len(draw.classes))
    return len(left)


def _numbered(batches, wanted) -> Iterator[tuple[int, np.ndarray]]:
    """Number and image of each that is wanted."""
    for first, drawn in batches:
        for number, image in enumerate(drawn.images, first):
            if number in wanted:
                yield number, image
