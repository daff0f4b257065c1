"""A softmax over codewords in chunks: the values and slopes of the whole one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from arrays import normal
from kinds import jit
from slopes import slopes

from mq_jax.quantizers.soft_assignment import assign_softly, entropies, mean_probabilities

pytestmark = pytest.mark.usefixtures("float64")

N, SIZE, DIM = 5, 11, 3
CHUNKS = 0, 1, 4, 11, 100


def product(z, table):
    return z @ table.T


def arrays():
    return [normal(seed, *shape) for seed, shape in enumerate([(N, DIM), (SIZE, DIM), (SIZE, 2)])]


@functools.partial(jit, static_argnames="chunk")
def everything(z, table, values, chunk, temperature=1.0, rng=None):
    found = assign_softly(product, z, table, values, chunk=chunk, temperature=temperature, rng=rng)
    return found, mean_probabilities(product, z, table, found.normaliser, chunk=chunk)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_are_the_whole(chunk):
    z, table, values = (array.astype(np.float64) for array in arrays())
    logits = z @ table.T
    p = scipy.special.softmax(logits, axis=1)
    found, mean = everything(z, table, values, chunk)
    np.testing.assert_allclose(found.normaliser, scipy.special.logsumexp(logits, axis=1))
    np.testing.assert_allclose(found.entropy, -np.sum(p * np.log(p), axis=1))
    np.testing.assert_allclose(found.mean, p @ values)
    np.testing.assert_array_equal(found.indices, np.argmax(logits, axis=1))
    np.testing.assert_allclose(mean, p.mean(axis=0))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_noise_is_gumbels_and_is_divided_by_the_temperature(chunk):
    z, table, values = (array.astype(np.float64) for array in arrays())
    key, width = jax.random.key(0), min(chunk, SIZE) or SIZE
    drawn = [
        jax.random.gumbel(jax.random.fold_in(key, i), (N, width), np.float64)
        for i in range(-(-SIZE // width))
    ]
    logits = (z @ table.T + np.concatenate(drawn, axis=1)[:, :SIZE]) / 0.3
    found, _ = everything(z, table, values, chunk, 0.3, key)
    np.testing.assert_array_equal(found.indices, np.argmax(logits, axis=1))
    np.testing.assert_allclose(found.mean, scipy.special.softmax(logits, axis=1) @ values)


def test_draws_are_from_the_softmax():
    table = normal(1, SIZE, DIM)
    z = np.tile(normal(0, 1, DIM), (5000, 1))
    found, _ = everything(z, table, None, 4, 1.0, jax.random.key(0))
    shares = np.bincount(found.indices, minlength=SIZE) / len(z)
    np.testing.assert_allclose(shares, scipy.special.softmax(z[0] @ table.T), atol=0.03)


@pytest.mark.parametrize("chunk", [0, 1, 4])
def test_ties_go_to_the_lowest_index(chunk):
    table = np.array([0, 2, 1, 2, 2, 0, 1], np.float64)[:, None]
    found, _ = everything(np.ones((2, 1)), table, None, chunk)
    np.testing.assert_array_equal(found.indices, 1)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_logits_that_vanish_or_are_huge_have_finite_values_and_slopes(scale):
    z, table, values = arrays()
    z, table = scale * z, np.abs(table) + 1

    @jit
    def found(z, table):
        def value(z, table):
            found = assign_softly(product, -jnp.abs(z), table, values, chunk=4)
            return jnp.sum(found.mean) + sum(entropies(product, -jnp.abs(z), table, chunk=4))

        return jax.value_and_grad(value, argnums=(0, 1))(z, table)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found(z, table)))


@pytest.mark.parametrize("chunk", [0, 4])
def test_slopes_are_those_of_finite_differences(chunk):
    arguments = [array.astype(np.float64) for array in arrays()]
    weights = normal(3, N, 2)

    def value(arguments):
        z, table, values = arguments
        key = jax.random.key(0)
        found = assign_softly(product, z, table, values, chunk=chunk, temperature=0.5, rng=key)
        alone, together = entropies(product, z, table, chunk=chunk)
        return jnp.sum(weights * found.mean) + 0.7 * alone - 1.3 * together

    expected = slopes(value, arguments)
    for gradient, slope in zip(jit(jax.grad(value))(arguments), expected, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-8)


def test_mixed_second_derivatives_are_those_of_the_whole():
    """Reverse over forward, as the hyper-gradient takes them."""
    z, table, values = (array.astype(np.float64) for array in arrays())
    along = normal(4, N, DIM).astype(np.float64)

    def mixed(chunk):
        def value(z, table):
            found = assign_softly(product, z, table, values, chunk=chunk)
            return jnp.sum(jnp.square(found.mean)) + sum(entropies(product, z, table, chunk=chunk))

        def directional(table):
            return jax.jvp(lambda z: value(z, table), (z,), (along,))[1]

        return jit(jax.grad(directional))(table)

    whole = mixed(0)
    assert np.abs(whole).max() > 1e-2
    np.testing.assert_allclose(mixed(4), whole, rtol=1e-9, atol=1e-12)
