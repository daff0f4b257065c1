"""The Inception score, out of sums that merge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

# Images of a split, as ADM's evaluator has them: ten splits of the usual 50,000.
SPLIT = 5000


class ScoreSums(NamedTuple):
    """Sums over the images of each split; consecutive images of a set are a split.

    Attributes:
      count: i64[S], images.
      total: f64[S, C], their class probabilities p.
      negative_entropy: f64[S], sum_c p_c log p_c.
    """

    count: np.ndarray
    total: np.ndarray
    negative_entropy: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, start: int, split: int = SPLIT) -> ScoreSums:
        """The sums of some images.

        Args:
          logits: f[N, C], in the order of the set.
          start: place of the first of them in the set.
          split: images of a split.

        Returns:
          Those of splits 0 to the last that one of these images is in.
        """
        log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
        p = np.exp(log_p)
        # Where p underflows, p log p is 0, its limit: log p itself is finite.
        entropy = np.sum(p * log_p, axis=-1)
        splits = (start + np.arange(len(p))) // split
        sums = cls.empty(int(splits[-1]) + 1 if len(p) else 0, p.shape[1])
        np.add.at(sums.count, splits, 1)
        np.add.at(sums.total, splits, p)
        np.add.at(sums.negative_entropy, splits, entropy)
        return sums

    @classmethod
    def empty(cls, splits: int, classes: int) -> ScoreSums:
        """The sums of no image."""
        return cls(np.zeros(splits, np.int64), np.zeros((splits, classes)), np.zeros(splits))

    def merge(self, other: ScoreSums) -> ScoreSums:
        """The sums of both parts of one set."""
        splits = max(len(self.count), len(other.count))
        parts = zip(self, other, strict=True)
        return ScoreSums(*(_longer(mine, splits) + _longer(its, splits) for mine, its in parts))


def inception_score(sums: ScoreSums) -> float:
    """The Inception score (Salimans et al., 2016) as ADM's evaluator has it.

    The mean over splits of exp(mean_x KL(p(y|x) || p(y))), p(y) the mean within the split; a last
    split of fewer images counts as the others do.

    Args:
      sums: of the whole set.

    Returns:
      From 1 to the number of classes.

    Raises:
      ValueError: there is no image.
    """
    there = sums.count > 0
    if not there.any():
        raise ValueError("the Inception score is of no image; expected at least one.")
    count, total, entropy = (part[there] for part in sums)
    marginal = total / count[:, None]
    # The cross entropy's mean is the marginal's own entropy.
    log = np.log(marginal, where=marginal > 0, out=np.zeros_like(marginal))
    divergence = entropy / count - np.sum(marginal * log, axis=-1)
    return float(np.mean(np.exp(divergence)))


def _longer(part, splits):
    """The sums with as many splits, the further ones of no image."""
    return np.pad(part, [(0, splits - len(part))] + [(0, 0)] * (part.ndim - 1))
