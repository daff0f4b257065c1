"""Metrics of generated images: statistics of a set that merge, and the numbers of two sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from mq_jax.metrics.frechet import Moments, frechet_distance
from mq_jax.metrics.inception_score import ScoreSums, inception_score
from mq_jax.metrics.manifold import precision_recall
from mq_jax.metrics.spaces import Activations, Space

# Images of a reference whose features precision and recall see, as in ADM's references.
MOST_NEIGHBOURS = 10_000


class SetStatistics(NamedTuple):
    """What the metrics know of a set of images.

    Attributes:
      moments: of the pooled features.
      features: f32[M, D], pooled ones, of all images or of some.
      spatial: moments of the spatial features; None in a space without.
      score: sums of the Inception score; None in a space without, and of a reference.
    """

    moments: Moments
    features: np.ndarray
    spatial: Moments | None = None
    score: ScoreSums | None = None

    @classmethod
    def empty(cls, space: Space, *, scored: bool = True) -> SetStatistics:
        """The statistics of no image.

        Args:
          space: in which it is measured.
          scored: whether the Inception score is asked for.

        Returns:
          The neutral element of `merge`.
        """
        return cls(
            Moments.empty(space.dim),
            np.zeros((0, space.dim), np.float32),
            Moments.empty(space.spatial_dim) if space.spatial else None,
            ScoreSums.empty(0, space.classes) if space.score and scored else None,
        )

    @classmethod
    def of(
        cls, found: Activations, start: int, *, kept: np.ndarray | None = None, scored: bool = True
    ) -> SetStatistics:
        """The statistics of some images.

        Args:
          found: their activations, on the host.
          start: place of the first of them in the set.
          kept: bool[B], whose features are kept; None: all.
          scored: whether the Inception score is asked for.

        Returns:
          A SetStatistics.
        """
        pool = np.asarray(found.pool, np.float32)
        return cls(
            Moments.of(pool),
            pool if kept is None else pool[kept],
            None if found.spatial is None else Moments.of(found.spatial),
            ScoreSums.of(found.logits, start) if scored and found.logits is not None else None,
        )

    def merge(self, other: SetStatistics) -> SetStatistics:
        """The statistics of both parts of a set; the features in the order of the parts."""
        return merged([self, other])


def merged(parts: Iterable[SetStatistics]) -> SetStatistics:
    """The statistics of the parts of a set together.

    Args:
      parts: at least one, in the order of their features; each is let go once it is added.

    Returns:
      A SetStatistics.
    """
    features, sums = [], None
    for part in parts:
        features.append(part.features)
        own = part.moments, part.spatial, part.score
        sums = own if sums is None else tuple(map(_merge, sums, own))
    moments, spatial, score = sums
    return SetStatistics(moments, np.concatenate(features), spatial, score)


def neighbourhood(images: int, most: int = MOST_NEIGHBOURS) -> np.ndarray:
    """Which images of a reference precision and recall see.

    Args:
      images: of the reference.
      most: of them that are seen.

    Returns:
      bool[images]; evenly spread, since sets are often sorted by class.
    """
    kept = np.zeros(images, bool)
    kept[np.linspace(0, images - 1, min(images, most)).round().astype(int)] = True
    return kept


def generation_metrics(
    samples: SetStatistics,
    reference: SetStatistics,
    space: Space,
    names: Collection[str] | None = None,
) -> dict[str, float]:
    """The metrics of generated images against a reference.

    Args:
      samples: their statistics, with all features, and with the score where the space has one.
      reference: that of the images they should be like.
      space: in which both were measured.
      names: what is asked for; None: all that the space has.

    Returns:
      name -> value, in the order of space.names. The Inception score is of the samples alone.

    Raises:
      ValueError: a set has too few images.
    """
    asked = [name for name in space.names if names is None or name in names]
    found = {}
    if space.frechet in asked:
        found[space.frechet] = frechet_distance(reference.moments, samples.moments)
    if space.spatial in asked:
        found[space.spatial] = frechet_distance(reference.spatial, samples.spatial)
    if space.score in asked:
        found[space.score] = inception_score(samples.score)
    if {space.precision, space.recall} & set(asked):
        pair = precision_recall(reference.features, samples.features)
        found |= dict(zip((space.precision, space.recall), pair, strict=True))
    return {name: found[name] for name in asked}


def _merge(mine, its):
    return None if mine is None else mine.merge(its)
