"""Centres of features, from which the bases of a quantizer start."""

import warnings

import numpy as np
from ml_collections import ConfigDict

from mq_jax.training.quantizing import are_codewords

# Passes over the features. Of encodings, 30 more take less than 1% off the squared distances.
_PASSES = 10


def tables_of(config: ConfigDict, features: np.ndarray) -> np.ndarray:
    """The bases of all groups and levels.

    A group has the centres of its own slice of z. Where a base is the codewords themselves, a
    level has those of what the levels before it leave; of any other base all levels have the
    same, as all groups have of VGG's features.

    Args:
      config: validated, with base kmeans.
      features: f32[N, width], from sampled_features.

    Returns:
      f32[T, K, D_e], in the order of groups and, within one, of levels.

    Raises:
      ValueError: there are fewer distinct features than codewords.
    """
    fields = config.quantizer
    of_z = config.codebook.features == "encoder"
    slices = np.split(features, fields.groups, axis=1) if of_z else [features]
    levels = 1 if fields.shared else fields.depth
    tables = []
    for each in slices:
        found = _levels(config, each, levels if of_z and are_codewords(config) else 1)
        tables += found * (levels // len(found))
    tables = np.stack(tables * (1 if of_z else fields.groups))
    return tables if of_z else _centred(tables)


def centres(points: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """K-means by Lloyd's passes, from points that are drawn; the same for the same points.

    Args:
      points: f32[N, d].
      size: K.
      seed: of its draws.

    Returns:
      (f32[K, d], i32[N] of the nearest centre).

    Raises:
      ValueError: there are fewer distinct points than centres.
    """
    distinct = np.unique(points, axis=0)
    if len(distinct) < size:
        raise ValueError(
            f"config.codebook.base is 'kmeans' with {len(points):,} features, of which "
            f"{len(distinct):,} are distinct; expected at least config.codebook.size, {size:,}: "
            "take a larger config.codebook.base_images, or more data."
        )
    # A seventh of all that a start imports, for few runs.
    from scipy.cluster.vq import kmeans2

    # Of equal points all but one would be the centre of nothing.
    first = np.random.default_rng(seed).choice(distinct, size, replace=False)
    # SciPy's sums are of one thread, so that their last bits are the same on every machine's cores.
    with warnings.catch_warnings():
        # A centre that no point is nearest to any more stays where it was.
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        means, nearest = kmeans2(points, first, iter=_PASSES, minit="matrix")
    return means.astype(np.float32), nearest


def _levels(config, points, levels):
    """Centres of the points, then of what these leave, as often as there are levels."""
    tables, left = [], points
    for level in range(levels):
        unit = config.quantizer.kind == "l2"
        seen = _unit(left) if unit else left
        found, nearest = centres(seen, config.codebook.size, config.seed)
        tables.append(found)
        if level + 1 < levels:
            left = left - (_unit(found) if unit else found)[nearest]
    return tables


def _unit(vectors):
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)


def _centred(tables):
    """Less their mean, with a mean square norm of one, as `scaled` has it."""
    tables = tables - tables.mean(axis=1, keepdims=True)
    square = np.mean(np.sum(np.square(tables), axis=-1), axis=1)[:, None, None]
    return tables / np.sqrt(np.maximum(square, 1e-24))
