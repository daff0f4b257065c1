"""Softmax over codewords, a chunk of them at a time, so that no N x K array need be whole."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mq_jax.quantizers.quantizer import check_channels

# (z, leaves [N, ...]; codewords, leaves [k, ...]) -> logits f32[N, k].
Score = Callable[[Any, Any], jax.Array]

# Below every logit, yet finite, so that a product with zero is zero.
_FAR = -1e30


class SoftAssignment(NamedTuple):
    """The softmax over all K codewords, by what is asked of it.

    Attributes:
      normaliser: f32[N], log sum_k exp(l_k).
      entropy: f32[N], of the softmax, in nats.
      mean: f32[N, D], sum_k P_k values_k; None without values.
      indices: i32[N] in [0, K), the first k with the highest l_k.
    """

    normaliser: jax.Array
    entropy: jax.Array
    mean: jax.Array | None
    indices: jax.Array


def rows(z: jax.Array, codewords: jax.Array, channels: int) -> jax.Array:
    """Encodings as assign_softly takes them.

    Args:
      z: f[..., channels].
      codewords: whose dtype they take where it is wider.
      channels: of z.

    Returns:
      f[N, channels].

    Raises:
      ValueError: z has other channels.
    """
    check_channels(z, channels)
    return z.reshape(-1, channels).astype(jnp.result_type(z, codewords))


def assign_softly(
    score: Score,
    z: Any,
    table: Any,
    values: jax.Array | None = None,
    *,
    chunk: int,
    temperature: jax.Array | float = 1.0,
    rng: jax.Array | None = None,
) -> SoftAssignment:
    """Softmax of l_k = (score_k + G_k) / temperature, G from Gumbel's distribution.

    A scan over the codewords keeps running sums, relative to the running maximum. A backward
    pass computes each chunk once more, its noise too, and holds but a few numbers of each
    encoding and chunk. It is differentiated in either mode, any number of times.

    Args:
      score: of some encodings and some codewords.
      z: encodings, leaves [N, ...].
      table: what codewords are scored by, leaves [K, ...].
      values: f32[K, D], of which the mean is asked.
      chunk: codewords at a time; 0 for all. What is drawn depends on it.
      temperature: of the softmax.
      rng: key of G; None for no noise.

    Returns:
      A SoftAssignment.
    """
    size = len(jax.tree.leaves(table)[0])
    pieces, real = _cut(((table, values), jnp.ones(size, bool)), size, chunk)
    width = real.shape[1]

    def visit(sums, piece):
        (codewords, some_values), are_real, number = piece
        logits = score(z, codewords)
        if rng is not None:
            key = jax.random.fold_in(rng, number)
            logits = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
        logits = jnp.where(are_real, logits / temperature, _FAR)
        return _add(sums, logits, some_values, number * width), None

    sums = _nothing(score, z, jax.tree.map(lambda leaf: leaf[0], pieces))
    sums = _over_pieces(visit, sums, (pieces, real, jnp.arange(len(real), dtype=jnp.int32)))[0]
    top, total, weighted, mean, best = sums
    normaliser = top + jnp.log(total)
    entropy = jnp.log(total) - weighted / total
    return SoftAssignment(
        normaliser, entropy, None if mean is None else mean / total[:, None], best
    )


def mean_probabilities(
    score: Score, z: Any, table: Any, normaliser: jax.Array, *, chunk: int
) -> jax.Array:
    """The mean over encodings of each codeword's probability.

    Args:
      score: as assign_softly's, without noise and at temperature 1.
      z: as assign_softly's.
      table: as assign_softly's.
      normaliser: f32[N], of assign_softly.
      chunk: as assign_softly's.

    Returns:
      f32[K]; it sums to 1.
    """
    size = len(jax.tree.leaves(table)[0])

    def visit(_, piece):
        codewords, are_real = piece
        # Of what fills up the last piece, the exponential could overflow.
        logits = jnp.where(are_real, score(z, codewords) - normaliser[:, None], _FAR)
        return (), jnp.mean(jnp.exp(logits), axis=0)

    pieces = _cut((table, jnp.ones(size, bool)), size, chunk)
    return _over_pieces(visit, (), pieces)[1].reshape(-1)[:size]


def entropies(score: Score, z: Any, table: Any, *, chunk: int) -> tuple[jax.Array, jax.Array]:
    """The mean of the encodings' entropies, and the entropy of their mean, in nats.

    Low and high, encodings are sure of their codes and use all of them (Jansen et al., 2020).

    Args:
      score: as assign_softly's.
      z: as assign_softly's.
      table: as assign_softly's.
      chunk: as assign_softly's.

    Returns:
      (f32[], f32[]), in [0, ln K].
    """
    assignment = assign_softly(score, z, table, chunk=chunk)
    p = mean_probabilities(score, z, table, assignment.normaliser, chunk=chunk)
    # The logarithm's slope is infinite at a probability that underflows to zero.
    together = -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-30)))
    return jnp.mean(assignment.entropy), together


def _nothing(score, z, first):
    """The sums before the first piece, of the shapes that it leads to."""
    codewords, values = first
    logits = jax.eval_shape(score, z, codewords)
    zeros = jnp.zeros(logits.shape[:1], logits.dtype)
    mean = None
    if values is not None:
        dtype = jnp.result_type(logits.dtype, values.dtype)
        mean = jnp.zeros((*logits.shape[:1], values.shape[1]), dtype)
    return jnp.full_like(zeros, _FAR), zeros, zeros, mean, jnp.zeros(zeros.shape, jnp.int32)


def _add(sums, logits, values, start):
    """Running sums of exp(l - top), of (l - top) exp(l - top) and of values, and the argmax."""
    top, total, weighted, mean, best = sums
    # A shift of all logits, which changes no probability and so carries no gradient.
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=1))
    # Strictly more: an equal logit further on never displaces the lower index.
    first = start + jnp.argmax(logits, axis=1).astype(jnp.int32)
    best = jnp.where(highest > top, first, best)
    new = jnp.maximum(top, highest)
    scale = jnp.exp(top - new)
    apart = logits - new[:, None]
    exponentials = jnp.exp(apart)
    weighted = scale * (weighted + (top - new) * total) + jnp.sum(apart * exponentials, axis=1)
    total = scale * total + jnp.sum(exponentials, axis=1)
    if mean is not None:
        product = jnp.matmul(exponentials, values, precision=jax.lax.Precision.HIGHEST)
        mean = scale[:, None] * mean + product
    return new, total, weighted, mean, best


def _cut(tree, size, chunk):
    """Leaves [K, ...] to [pieces, chunk, ...], filled up with zeros."""
    chunk = min(chunk or size, size)

    def cut(leaf):
        padding = ((0, -size % chunk), *((0, 0) for _ in leaf.shape[1:]))
        return jnp.pad(leaf, padding).reshape(-1, chunk, *leaf.shape[1:])

    return jax.tree.map(cut, tree)


def _over_pieces(visit, carry, pieces):
    """lax.scan that holds no piece's intermediate arrays for a backward pass."""
    if len(jax.tree.leaves(pieces)[0]) == 1:
        carry, found = visit(carry, jax.tree.map(lambda leaf: leaf[0], pieces))
        return carry, jax.tree.map(lambda leaf: leaf[None], found)
    return jax.lax.scan(jax.checkpoint(visit, prevent_cse=False), carry, pieces)
