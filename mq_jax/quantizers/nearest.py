"""The nearest codeword of each encoding, without ever holding the whole matrix of distances."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# (z f32[..., D], codebook f32[K, D]) -> indices i32[...].
Lookup = Callable[[jax.Array, jax.Array], jax.Array]

# Codewords compared at once inside an argmin: wide enough for vector units, few enough blocks.
BLOCK = 32


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
        return first_minimum(code_scores(z, codebook, norms))
    return _chunked_minimum(z, codebook, norms, chunk)


def code_scores(z: jax.Array, codebook: jax.Array, norms: jax.Array) -> jax.Array:
    """Squared distances less ||z||^2, which orders no codeword.

    Args:
      z: f32[N, D], encodings.
      codebook: f32[K, D].
      norms: f32[K], of the codewords, squared.

    Returns:
      f32[N, K].
    """
    return norms + jnp.matmul(-2 * z, codebook.T, precision=jax.lax.Precision.HIGHEST)


def first_minimum(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The minimum of each row and its lowest index.

    Blockwise, since XLA's CPU backend vectorises a minimum but not an argmin.

    Args:
      scores: f32[N, K].

    Returns:
      (f32[N], i32[N] in [0, K)).
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
    """first_minimum of the scores by a running minimum over chunks, then within one block."""
    size, dim = codebook.shape
    padding = -size % chunk
    codebook = jnp.pad(codebook, ((0, padding), (0, 0)))
    # What is only padding is infinitely far.
    norms = jnp.pad(norms, (0, padding), constant_values=jnp.inf)
    starts = jnp.arange(len(norms) // chunk, dtype=jnp.int32) * (chunk // BLOCK)

    def visit(best, piece):
        codewords, their_norms, start = piece
        scores = code_scores(z, codewords, their_norms)
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
