"""How far the codewords' distribution is from that of the encodings, both taken for Gaussian."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """Of weighted vectors; each may have an axis of parts first.

    Attributes:
      weight: f32[], their total weight.
      mean: f32[D].
      scatter: f32[D, D], the weighted sum of outer products of what is left of the mean.
    """

    weight: jax.Array
    mean: jax.Array
    scatter: jax.Array


@dataclasses.dataclass(frozen=True)
class Wasserstein:
    """The squared 2-Wasserstein distance of two Gaussians (after Fang et al., 2025).

        |m - n|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2

    of the codewords' mean n and covariance B, over all K, and the encodings' m and A. These are
    running moments of the steps before, in place of a queue of encodings: a constant, the same
    for each part of a batch. So all codewords move, and encodings do not. 0 before any step.

    Attributes:
      weight: in the loss.
      decay: of the moments, per step.
    """

    weight: float = 0.5
    decay: float = 0.9

    name = "wasserstein"

    def init(self, size: int, dim: int) -> Moments:
        """Moments of nothing."""
        return Moments(jnp.zeros(()), jnp.zeros(dim), jnp.zeros((dim, dim)))

    def __call__(self, state: Moments, z: jax.Array, codewords: jax.Array) -> jax.Array:
        """As Term's; z is not read."""
        ours = moments(codewords)
        covariance = state.scatter / jnp.maximum(state.weight, 1e-30)
        distance = gaussian_distance(state.mean, covariance, ours.mean, ours.scatter / ours.weight)
        return jnp.where(state.weight > 0, distance, 0.0)

    def observe(
        self, z: jax.Array, codewords: jax.Array, indices: jax.Array, rng: jax.Array
    ) -> Moments:
        """Moments of the encodings."""
        # Running moments follow the encodings; nothing is learned through them.
        return moments(jax.lax.stop_gradient(z.reshape(-1, z.shape[-1])))

    def advance(self, state: Moments, statistics: Moments) -> Moments:
        """The moments a step later."""
        faded = state._replace(weight=self.decay * state.weight, scatter=self.decay * state.scatter)
        return merge(jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), faded, statistics))


def moments(vectors: jax.Array) -> Moments:
    """Moments of vectors of weight 1 each.

    Args:
      vectors: f[N, D].

    Returns:
      Moments of f32, or wider.
    """
    vectors = vectors.astype(jnp.result_type(vectors, jnp.float32))
    mean = jnp.mean(vectors, axis=0)
    left = vectors - mean
    scatter = jnp.matmul(left.T, left, precision=jax.lax.Precision.HIGHEST)
    return Moments(jnp.asarray(len(vectors), vectors.dtype), mean, scatter)


def merge(parts: Moments) -> Moments:
    """Moments of all vectors from those of parts (Chan et al., 1979).

    Args:
      parts: with an axis of parts first.

    Returns:
      Moments without it.
    """
    weight = jnp.sum(parts.weight)
    share = parts.weight / jnp.maximum(weight, 1e-30)
    mean = jnp.sum(share[:, None] * parts.mean, axis=0)
    apart = parts.mean - mean
    between = jnp.matmul(
        (parts.weight[:, None] * apart).T, apart, precision=jax.lax.Precision.HIGHEST
    )
    return Moments(weight, mean, jnp.sum(parts.scatter, axis=0) + between)


def gaussian_distance(
    fixed_mean: jax.Array, fixed: jax.Array, mean: jax.Array, covariance: jax.Array
) -> jax.Array:
    """The squared 2-Wasserstein distance of two Gaussians.

    Args:
      fixed_mean: f32[D], of the one that is not differentiated.
      fixed: f32[D, D], its covariance.
      mean: f32[D], of the other.
      covariance: f32[D, D].

    Returns:
      f32[], at least 0 to rounding. Along directions where either has no variance, which the
      transport between them does not reach, the slope is 0.
    """
    # Eigenvectors have no derivative where eigenvalues coincide, and none is needed here.
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(fixed))
    highest = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    root = highest(vectors * jnp.sqrt(jnp.maximum(values, 0.0)), vectors.T)
    between = jnp.linalg.eigvalsh(highest(highest(root, covariance), root))
    # Rounding leaves eigenvalues that should be 0 on either side of it.
    floor = jnp.finfo(between.dtype).eps * len(between) * jnp.max(jnp.abs(between))
    real = between > jnp.maximum(floor, 1e-30)
    roots = jnp.where(real, jnp.sqrt(jnp.where(real, between, 1.0)), 0.0)
    traces = jnp.trace(fixed) + jnp.trace(covariance) - 2 * jnp.sum(roots)
    return jnp.sum(jnp.square(fixed_mean - mean)) + traces
