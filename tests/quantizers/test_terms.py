"""Further terms of a codebook's loss: their values, and whom they move."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from arrays import normal
from kinds import jit, table
from slopes import assert_trees_close, slopes

from mq_jax.quantizers.entropy import Entropy
from mq_jax.quantizers.vq import VQ
from mq_jax.quantizers.wasserstein import Moments, Wasserstein, gaussian_distance, merge, moments

pytestmark = pytest.mark.usefixtures("float64")

N, SIZE, DIM = 6, 9, 3


def arrays():
    return normal(0, N, DIM).astype(np.float64), normal(1, SIZE, DIM).astype(np.float64)


def seen(vectors):
    """Moments of them as the state of a term."""
    return jax.tree.map(np.asarray, moments(jnp.asarray(vectors)))


def by_scipy(first, second):
    """The squared distance of the Gaussians of two sets of vectors."""
    a, b = (np.cov(vectors.T, bias=True) for vectors in (first, second))
    root = scipy.linalg.sqrtm(a)
    middle = scipy.linalg.sqrtm(root @ b @ root).real
    apart = np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2)
    return apart + np.trace(a) + np.trace(b) - 2 * np.trace(middle)


def test_the_distance_is_that_of_two_gaussians():
    z, codewords = normal(2, 50, DIM).astype(np.float64), arrays()[1]
    value = jit(Wasserstein())(seen(z), None, codewords)
    np.testing.assert_allclose(value, by_scipy(z, codewords), rtol=1e-9)
    np.testing.assert_allclose(jit(Wasserstein())(seen(z), None, z), 0, atol=1e-12)


@pytest.mark.parametrize("size", [SIZE, 2])
def test_the_distance_moves_every_codeword_even_where_they_span_less_than_the_space(size):
    z, codewords = normal(2, 50, DIM).astype(np.float64), arrays()[1][:size]
    state = seen(z)

    def value(codewords):
        return Wasserstein()(state, None, codewords)

    found = jit(jax.grad(value))(codewords)
    # Out of the span, the distance has a kink: there a central difference is 0 as the slope is.
    np.testing.assert_allclose(found, slopes(value, codewords), rtol=1e-5, atol=1e-5)
    assert np.abs(found).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("case", ["codewords equal", "encodings equal", "axes equal"])
def test_the_distance_has_finite_slopes_where_covariances_degenerate(case):
    z, codewords = normal(2, 50, DIM), arrays()[1]
    if case == "codewords equal":
        codewords[:] = codewords[0]
    elif case == "encodings equal":
        z[:] = z[0]
    else:
        z, codewords = np.vstack([np.eye(3), -np.eye(3)]), 2 * np.vstack([np.eye(3), -np.eye(3)])
    state = seen(z)
    distance = lambda codewords: Wasserstein()(state, None, codewords)  # noqa: E731
    value, gradient = jit(jax.value_and_grad(distance))(codewords)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if case == "axes equal":
        # Twice as wide: every codeword is drawn in, by 2 (c - c / 2) / K.
        np.testing.assert_allclose(gradient, codewords / len(codewords), atol=1e-9)


def test_moments_of_parts_merge_to_those_of_the_whole():
    vectors = 100 + normal(3, 12, DIM).astype(np.float64)
    parts = [moments(jnp.asarray(part)) for part in (vectors[:3], vectors[3:5], vectors[5:])]
    merged = merge(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    expected = Moments(12, vectors.mean(axis=0), 12 * np.cov(vectors.T, bias=True))
    assert_trees_close(merged, expected, rtol=1e-10)


def test_running_moments_fade_and_encodings_get_no_gradient():
    first, second = normal(2, N, DIM).astype(np.float64), normal(3, N, DIM).astype(np.float64)
    term = Wasserstein(decay=0.5)

    @jit
    def step(state, z):
        parts = z.reshape(2, -1, DIM)
        return term.advance(state, jax.vmap(lambda z: term.observe(z, None, None, None))(parts))

    state = step(step(term.init(SIZE, DIM), first), second)
    weights = np.repeat([0.5, 1.0], N)
    both = np.vstack([first, second])
    mean = np.average(both, axis=0, weights=weights)
    scatter = (weights[:, None] * (both - mean)).T @ (both - mean)
    assert_trees_close(state, Moments(weights.sum(), mean, scatter), rtol=1e-9)
    to_z = jax.grad(lambda z: sum(map(jnp.sum, term.observe(z, None, None, None))))(first)
    assert not to_z.any()


def test_before_any_step_the_distance_is_zero_with_no_slope():
    term, codewords = Wasserstein(), arrays()[1]
    value = lambda codewords: term(term.init(SIZE, DIM), None, codewords)  # noqa: E731
    found, gradient = jit(jax.value_and_grad(value))(codewords)
    assert found == 0 and not gradient.any()


@pytest.mark.parametrize("chunk", [0, 4])
def test_the_entropy_is_that_of_the_softmax_of_distances_and_moves_both_sides(chunk):
    z, codewords = arrays()
    term = Entropy(temperature=0.7, sure=0.3, even=1.2, chunk=chunk)
    square = np.sum((z[:, None] - codewords) ** 2, axis=-1)
    p = scipy.special.softmax(-square / 0.7, axis=1)
    alone = np.mean(scipy.special.entr(p).sum(axis=1))
    together = scipy.special.entr(p.mean(axis=0)).sum()

    def value(arguments):
        return term((), *arguments)

    found, gradients = jit(jax.value_and_grad(value))((z, codewords))
    np.testing.assert_allclose(found, 0.3 * alone - 1.2 * together)
    assert_trees_close(gradients, slopes(value, (z, codewords)), rtol=1e-6, atol=1e-9)
    assert min(np.abs(gradient).min() for gradient in gradients) > 0


def test_a_codebook_adds_its_terms_by_weight_and_names_them():
    z, codewords = arrays()
    terms = Wasserstein(weight=0.5), Entropy(weight=0.1, temperature=1.0)
    quantizer = VQ(table(size=SIZE, dim=DIM), commitment=0.25, terms=terms)
    state = seen(normal(2, 50, DIM).astype(np.float64)), ()
    call = jit(functools.partial(quantizer, straight_through="encoder", train=True))
    q = call({"embedding": codewords}, state, z)
    assert sorted(q.terms) == ["attraction", "entropy", "wasserstein"]
    weighted = q.terms["attraction"] + 0.5 * q.terms["wasserstein"] + 0.1 * q.terms["entropy"]
    np.testing.assert_allclose(q.loss, weighted)
    np.testing.assert_allclose(q.terms["wasserstein"], jit(terms[0])(state[0], z, codewords))
    np.testing.assert_allclose(q.terms["entropy"], jit(terms[1])((), z, codewords))
    np.testing.assert_allclose(q.terms["attraction"], np.mean((z - q.z_q) ** 2))
    parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
    advanced = quantizer.advance({"embedding": codewords}, state, parts, jax.random.key(0))
    assert advanced.replaced is None
    np.testing.assert_allclose(advanced.state[0].weight, 0.9 * 50 + N)


def test_the_distance_of_two_gaussians_in_one_dimension_is_that_of_means_and_deviations():
    mean, variance = jnp.ones(1), jnp.full((1, 1), 4.0)
    found = gaussian_distance(mean, variance, 3 * mean, 9 * variance)
    np.testing.assert_allclose(found, 2**2 + (6 - 2) ** 2)
