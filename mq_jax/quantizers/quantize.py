"""Lookup in a codebook, straight-through estimators, and what a code histogram tells."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

STRAIGHT_THROUGH = ("encoder", "encoder-and-codewords")

# (z f32[..., D], codebook f32[K, D]) -> indices i32[...].
Lookup = Callable[[jax.Array, jax.Array], jax.Array]

# Codewords compared at once inside an argmin: wide enough for vector units, few enough blocks.
BLOCK = 32


class Quantized(NamedTuple):
    """The result of any quantizer.

    Attributes:
      z_q: f32[..., D], the codewords of the codes.
      z_hat: f32[..., D], the same value with the straight-through gradient, for the decoder.
      indices: i32[...] in [0, K).
      loss: f32[], mean((z - z_q)^2), with no gradient stopped.
    """

    z_q: jax.Array
    z_hat: jax.Array
    indices: jax.Array
    loss: jax.Array


def quantize(
    z: jax.Array, codebook: jax.Array, *, straight_through: str, lookup: Lookup
) -> Quantized:
    """Replaces each encoding by its nearest codeword.

    Args:
      z: f32[..., D], encodings.
      codebook: f32[K, D].
      straight_through: one of STRAIGHT_THROUGH.
      lookup: nearest_codeword, or one of its kind.

    Returns:
      A Quantized. Its loss stops no gradient: *which argument is differentiated* says who
      learns. Stopped on either side, it would cut the indirect part of the hyper-gradient.
    """
    indices = lookup(z, codebook)
    z_q = codebook[indices]
    z_hat = apply_straight_through(z, z_q, kind=straight_through)
    return Quantized(z_q, z_hat, indices, jnp.mean(jnp.square(z - z_q)))


def nearest_codeword(z: jax.Array, codebook: jax.Array, *, chunk: int = 0) -> jax.Array:
    """The index of the codeword nearest to each encoding; ties go to the lowest index.

    argmin_k ||z - c_k||^2 = argmin_k (||c_k||^2 - 2 z.c_k), in float32 or wider; with a chunk
    the N x K matrix is never whole: a scan over the codebook keeps a running minimum.

    Args:
      z: f[..., D], encodings.
      codebook: f[K, D].
      chunk: codewords compared at a time, rounded up to a multiple of BLOCK; 0 for all. K need
        not be a multiple of it.

    Returns:
      i32[...] in [0, K).

    Raises:
      ValueError: when z and the codebook disagree on D.
    """
    z, codebook = as_constants(z, codebook)
    _, indices = lowest_scores(z.reshape(-1, z.shape[-1]), codebook, chunk=chunk)
    return indices.reshape(z.shape[:-1])


def as_constants(z: jax.Array, codebook: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What a lookup compares: values of float32 or wider, without a gradient.

    Args:
      z: f[..., D], encodings.
      codebook: f[K, D].

    Returns:
      z and the codebook, of one dtype.

    Raises:
      ValueError: when they disagree on D.
    """
    if z.shape[-1] != codebook.shape[-1]:
        raise ValueError(
            f"z has {z.shape[-1]} channels and the codebook {codebook.shape[-1]}; expected equal."
        )
    # bfloat16 holds 8 bits: distances of near codewords would be equal.
    dtype = jnp.result_type(z, codebook, jnp.float32)
    # The assignment is piecewise constant: its derivative is zero and not worth tracing.
    return jax.lax.stop_gradient((z.astype(dtype), codebook.astype(dtype)))


@jax.named_scope("lookup")
def lowest_scores(z: jax.Array, codebook: jax.Array, *, chunk: int) -> tuple[jax.Array, jax.Array]:
    """The lowest score of each encoding, ||c_k||^2 - 2 z.c_k, and the first k that has it.

    Args:
      z: f32[N, D], encodings.
      codebook: f32[K, D].
      chunk: as nearest_codeword's.

    Returns:
      (f32[N], i32[N] in [0, K)).
    """
    chunk += -chunk % BLOCK
    norms = jnp.sum(jnp.square(codebook), axis=-1)
    if not 0 < chunk < len(codebook):
        return _first_minimum(_scores(z, codebook, norms))
    return _chunked_minimum(z, codebook, norms, chunk)


def _scores(z, codebook, norms):
    """f32[N, K]: squared distances less ||z||^2, which orders no codeword."""
    return norms + jnp.matmul(-2 * z, codebook.T, precision=jax.lax.Precision.HIGHEST)


def _first_minimum(scores):
    """The minimum of each row of f32[N, K] and its lowest index.

    Blockwise, since XLA's CPU backend vectorises a minimum but not an argmin.
    """
    rows, size = scores.shape
    if size % BLOCK:
        indices = jnp.argmin(scores, axis=-1)
        minima = jnp.take_along_axis(scores, indices[:, None], axis=-1)[:, 0]
        return minima, indices.astype(jnp.int32)
    blocks = scores.reshape(rows, size // BLOCK, BLOCK)
    minima = jnp.min(blocks, axis=-1)
    block = jnp.argmin(minima, axis=-1)
    within = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    indices = block * BLOCK + jnp.argmin(within, axis=-1)
    return jnp.min(minima, axis=-1), indices.astype(jnp.int32)


def _chunked_minimum(z, codebook, norms, chunk):
    """_first_minimum of the scores by a running minimum over chunks, then within one block."""
    size, dim = codebook.shape
    padding = -size % chunk
    codebook = jnp.pad(codebook, ((0, padding), (0, 0)))
    # What is only padding is infinitely far.
    norms = jnp.pad(norms, (0, padding), constant_values=jnp.inf)
    starts = jnp.arange(len(norms) // chunk, dtype=jnp.int32) * (chunk // BLOCK)

    def visit(best, piece):
        codewords, their_norms, start = piece
        scores = _scores(z, codewords, their_norms)
        minima = jnp.min(scores.reshape(z.shape[0], chunk // BLOCK, BLOCK), axis=-1)
        lowest = jnp.min(minima, axis=-1)
        block = start + jnp.argmin(minima, axis=-1).astype(jnp.int32)
        # Strictly less: an equal score further on never displaces the lower index.
        better = lowest < best[0]
        return (jnp.where(better, lowest, best[0]), jnp.where(better, block, best[1])), None

    # Made from z, so that the carry is sharded as z is.
    nothing = jnp.full_like(z[:, 0], jnp.inf), jnp.zeros_like(z[:, 0], dtype=jnp.int32)
    chunks = codebook.reshape(-1, chunk, dim), norms.reshape(-1, chunk), starts
    (lowest, block), _ = jax.lax.scan(visit, nothing, chunks)
    return lowest, block * BLOCK + _nearest_within(z, codebook, norms, block)


def _nearest_within(z, codebook, norms, block):
    """The first of the nearest codewords in each encoding's block, i32[N] in [0, BLOCK)."""
    codewords = codebook.reshape(-1, BLOCK, z.shape[-1])[block]
    distances = jnp.sum(jnp.square(z[:, None] - codewords), axis=-1)
    real = jnp.isfinite(norms.reshape(-1, BLOCK)[block])
    return jnp.argmin(jnp.where(real, distances, jnp.inf), axis=-1).astype(jnp.int32)


def apply_straight_through(z: jax.Array, z_q: jax.Array, *, kind: str) -> jax.Array:
    """The value of z_q with a gradient that passes the rounding by.

    `encoder` (the paper's): the gradient reaches z alone, and the task loss reaches the
    codewords only through the hyper-gradient. `encoder-and-codewords`: the gradient reaches
    z and, undiminished, z_q as well: another algorithm.

    Args:
      z: f32[..., D], encodings.
      z_q: f32[..., D], their codewords.
      kind: one of STRAIGHT_THROUGH.

    Returns:
      f32[..., D].

    Raises:
      ValueError: for a kind that is not among STRAIGHT_THROUGH.
    """
    if kind == "encoder":
        # The rounding error counts as a constant: d z_hat / dz = 1, d z_hat / d z_q = 0.
        return z + jax.lax.stop_gradient(z_q - z)
    if kind == "encoder-and-codewords":
        # z enters with value zero and slope one: d z_hat / dz = 1, d z_hat / d z_q = 1.
        return z_q + (z - jax.lax.stop_gradient(z))
    raise ValueError(f"straight_through is {kind!r}; expected one of {STRAIGHT_THROUGH}.")


def code_counts(indices: jax.Array, size: int) -> jax.Array:
    """How often each code occurs.

    Args:
      indices: i32[...] in [0, K).
      size: K.

    Returns:
      i32[K]; it sums to the number of indices.
    """
    return jnp.zeros(size, jnp.int32).at[indices.reshape(-1)].add(1)


def usage(counts: jax.Array) -> jax.Array:
    """The share of codes that occur at all.

    Args:
      counts: i32[K], the merged histogram of a whole data set.

    Returns:
      f32[] in [0, 1].
    """
    return jnp.mean(counts > 0, dtype=jnp.float32)


def perplexity(counts: jax.Array) -> jax.Array:
    """exp of the entropy of the code distribution: the number of codes in effective use.

    Args:
      counts: i32[K], the merged histogram of a whole data set.

    Returns:
      f32[] in [1, K], or 1 for an empty histogram.
    """
    counts = counts.astype(jnp.float32)
    p = counts / jnp.maximum(jnp.sum(counts), 1)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p)))
