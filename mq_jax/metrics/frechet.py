"""The Fréchet distance between two sets of features, from their moments, in float64."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
from absl import logging

from mq_jax.storage.archive import Stored, read_arrays
from mq_jax.storage.files import replacing

_STORED = {
    "key": Stored("U", 0),
    "count": Stored("iu", 0),
    "total": Stored("f", 1),
    "outer": Stored("f", 2),
}


class Moments(NamedTuple):
    """Sums over a set of feature vectors, which merge exactly up to the rounding of float64.

    Attributes:
      count: vectors in the set.
      total: f64[D], their sum.
      outer: f64[D, D], the sum of their outer products.
    """

    count: int
    total: np.ndarray
    outer: np.ndarray

    @classmethod
    def empty(cls, dim: int) -> Moments:
        """The moments of no vector."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """The moments of features f[N, D]."""
        features = np.asarray(features, np.float64)
        return cls(len(features), features.sum(0), features.T @ features)

    @classmethod
    def of_gaussian(cls, mean: np.ndarray, covariance: np.ndarray) -> Moments:
        """Moments with a mean f[D] and a covariance f[D, D], as if of two vectors."""
        mean, covariance = (np.asarray(x, np.float64) for x in (mean, covariance))
        return cls(2, 2 * mean, covariance + 2 * np.outer(mean, mean))

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        return Moments(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def mean(self) -> np.ndarray:
        """f64[D]."""
        return self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        """f64[D, D], unbiased: over N - 1."""
        return (self.outer - np.outer(self.total, self.mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Fréchet distance of two Gaussians with these moments (Heusel et al., 2017).

    |m_a - m_b|^2 + Tr(S_a) + Tr(S_b) - 2 Tr((S_a S_b)^(1/2)). The last trace is that of
    (R S_b R)^(1/2) with R = S_a^(1/2): symmetric, so that no root is ever complex.

    Args:
      a: of one set.
      b: of the other.

    Returns:
      At least 0.

    Raises:
      ValueError: a set has fewer than two vectors, or their dimensions differ.
    """
    if min(a.count, b.count) < 2 or a.total.shape != b.total.shape:
        raise ValueError(
            f"the sets have {a.count} and {b.count} vectors of {len(a.total)} and {len(b.total)} "
            "dimensions; expected at least 2 vectors in either, of equal dimensions."
        )
    difference, of_a, of_b = a.mean - b.mean, a.covariance, b.covariance
    values, vectors = np.linalg.eigh(of_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # A covariance of fewer vectors than dimensions has eigenvalues that rounding makes negative.
    product = np.linalg.eigvalsh(root @ of_b @ root)
    trace = np.sqrt(np.maximum(product, 0)).sum()
    distance = difference @ difference + np.trace(of_a) + np.trace(of_b) - 2 * trace
    return max(float(distance), 0.0)


def save_reference(path: pathlib.Path, moments: Moments, key: str) -> None:
    """Keeps moments on disk, whole or not at all.

    Args:
      path: of the file; its folder exists.
      moments: of a reference set.
      key: what they belong to.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, key=np.array(key), **moments._asdict())


def load_reference(path: pathlib.Path, key: str, dim: int) -> Moments | None:
    """Reads moments from disk.

    Args:
      path: of the file.
      key: what they must belong to.
      dim: D, of the vectors.

    Returns:
      The moments; None where there are none, or, which is logged, others or damaged ones.
    """
    if not path.exists():
        return None
    try:
        stored = read_arrays(path, _STORED)
        found, moments = str(stored.pop("key")), Moments(**stored)
        moments = moments._replace(count=int(moments.count))
        if moments.total.shape != (dim,) or moments.outer.shape != (dim, dim):
            sums = f"{moments.total.shape} and {moments.outer.shape}"
            raise ValueError(f"its sums are {sums}; expected {dim} dimensions")
        if moments.count < 0 or not all(np.isfinite(x).all() for x in moments[1:]):
            raise ValueError("its count or its sums are not finite and positive")
    except (OSError, ValueError) as error:
        logging.warning("The reference statistics %s are damaged (%s); leaving them", path, error)
        return None
    if found != key:
        logging.warning("The reference statistics %s are of %r, not %s", path, found[:64], key)
        return None
    return moments
