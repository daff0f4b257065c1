"""Precision and recall of samples: how much of one set's features lies in the other's manifold.

The manifold of a set is the union of balls about its features, each as large as the distance to
the k-th nearest other one (Kynkäänniemi et al., 2019).
"""

import jax
import jax.numpy as jnp
import numpy as np

# As the published evaluators have it.
NEIGHBOURS = 3

# Rows and columns of distances at a time.
BLOCK = 2000


def precision_recall(
    reference: np.ndarray, samples: np.ndarray, *, neighbours: int = NEIGHBOURS, block: int = BLOCK
) -> tuple[float, float]:
    """Precision and recall as ADM's evaluator has them.

    Precision is the share of samples that lie in the ball of any reference, recall the share of
    references that lie in the ball of any sample; what lies on a ball's surface is in it. Squared
    distances are |u|^2 - 2 uv + |v|^2, at least 0, in full float32.

    Args:
      reference: f32[M, D].
      samples: f32[N, D].
      neighbours: k; a vector is not its own neighbour, an equal one is.
      block: rows and columns at a time; memory grows with its square.

    Returns:
      (precision, recall), in [0, 1].

    Raises:
      ValueError: a set has no more than k vectors, or their dimensions differ.
    """
    least = min(len(reference), len(samples))
    if least <= neighbours or reference.shape[1:] != samples.shape[1:]:
        raise ValueError(
            f"the sets have {len(reference)} and {len(samples)} vectors of "
            f"{reference.shape[1]} and {samples.shape[1]} dimensions; expected more than "
            f"{neighbours} in either, of equal dimensions."
        )
    references, others = (_blocks(part, block) for part in (reference, samples))
    own = [_radii(blocks, neighbours) for blocks in (references, others)]
    covered, reached = ([False] * len(blocks) for blocks in (references, others))
    for i, rows in enumerate(references):
        for j, columns in enumerate(others):
            in_samples, in_reference = _inside(rows, columns, own[0][i], own[1][j])
            covered[i], reached[j] = covered[i] | in_samples, reached[j] | in_reference
    covered, reached = (np.concatenate(jax.device_get(part)) for part in (covered, reached))
    return float(reached[: len(samples)].mean()), float(covered[: len(reference)].mean())


def squared_radii(
    features: np.ndarray, *, neighbours: int = NEIGHBOURS, block: int = BLOCK
) -> np.ndarray:
    """The squared distance of each vector to its k-th nearest other one.

    Args:
      features: f32[N, D], more than k.
      neighbours: k.
      block: as precision_recall's.

    Returns:
      f32[N].
    """
    parts = _radii(_blocks(features, block), neighbours)
    return np.concatenate([np.asarray(part) for part in parts])[: len(features)]


def _blocks(features, block):
    """Pairs of f32[block, D] and which of its rows are vectors of the set."""
    features = np.asarray(features, np.float32)
    block, pairs = min(block, len(features)), []
    for start in range(0, len(features), block):
        rows = features[start : start + block]
        padding = block - len(rows)
        live = np.arange(block) < len(rows)
        pairs.append((jnp.asarray(np.pad(rows, ((0, padding), (0, 0)))), jnp.asarray(live)))
    return pairs


def _radii(blocks, neighbours):
    """The squared radii of each block, f32[block]; of what is no vector, any number."""
    radii = []
    for rows, _ in blocks:
        # With the vector itself, which is the nearest.
        nearest = jnp.full((len(rows), neighbours + 1), jnp.inf)
        for columns, live in blocks:
            nearest = _nearest(rows, columns, live, nearest)
        radii.append(nearest[:, -1])
    return radii


@jax.jit
def _nearest(rows, columns, live, nearest):
    """The smallest squared distances so far and of a block, ascending."""
    distances = jnp.where(live, _squared_distances(rows, columns), jnp.inf)
    every = jnp.concatenate([nearest, distances], axis=1)
    return -jax.lax.top_k(-every, nearest.shape[1])[0]


@jax.jit
def _inside(references, samples, of_references, of_samples):
    """Which references lie in a sample's ball, and which samples in a reference's."""
    (rows, live_rows), (columns, live_columns) = references, samples
    distances = _squared_distances(rows, columns)
    in_samples = (distances <= of_samples) & live_columns
    in_references = (distances <= of_references[:, None]) & live_rows[:, None]
    return jnp.any(in_samples, axis=1), jnp.any(in_references, axis=0)


def _squared_distances(rows, columns):
    """f32[n, m], at least 0."""
    product = jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
    of_rows, of_columns = (jnp.sum(jnp.square(x), axis=1) for x in (rows, columns))
    return jnp.maximum(of_rows[:, None] - 2 * product + of_columns, 0)
