"""What every kind of quantizer must do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from kinds import DRAWN_BY_PART, KINDS, jit

from mq_jax.quantizers.histogram import code_counts
from mq_jax.quantizers.quantizer import codes, distinct

every_kind = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def made(kind):
    """(quantizer, params, state, quantize), the last jitted once for its kind and mode."""
    quantizer = KINDS[kind]()
    params, state = jit(quantizer.init)(jax.random.key(0))

    @functools.partial(jit, static_argnames="train")
    def quantize(params, state, z, rng, train):
        return quantizer(params, state, z, straight_through="encoder", train=train, rng=rng)

    return quantizer, params, state, quantize


def encodings(quantizer, *shape, seed=0):
    return jnp.asarray(normal(seed, *shape, quantizer.channels))


@every_kind
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3)])
def test_shapes_are_those_of_the_contract(kind, shape):
    quantizer, params, state, quantize = made(kind)
    q = quantize(params, state, encodings(quantizer, *shape), jax.random.key(1), train=True)
    assert q.indices.shape == shape + ((quantizer.depth,) if quantizer.depth else ())
    assert q.indices.dtype == jnp.int32
    assert q.z_q.shape == q.z_hat.shape == (*shape, quantizer.dim)
    assert q.loss.shape == () and all(term.shape == () for term in q.terms.values())
    assert 0 <= int(q.indices.min()) and int(q.indices.max()) < quantizer.size


@every_kind
def test_codes_decode_to_what_evaluation_decodes_bit_for_bit(kind):
    quantizer, params, state, quantize = made(kind)
    z = encodings(quantizer, 3, 5)
    q = quantize(params, state, z, jax.random.key(1), train=False)
    folded = jit(quantizer.fold)(params, state)
    indices = jit(quantizer.encode)(folded, z)
    np.testing.assert_array_equal(indices, q.indices)
    np.testing.assert_array_equal(jit(quantizer.decode)(folded, indices), q.z_q)
    np.testing.assert_array_equal(q.z_hat, q.z_q)


@every_kind
def test_every_code_has_a_codeword_of_its_own(kind):
    quantizer, params, state, _ = made(kind)
    codewords = jit(lambda *a: quantizer.codewords(quantizer.fold(*a)))(params, state)
    assert codewords.shape[0] == codes(quantizer) and codewords.ndim == 2
    assert np.isfinite(codewords).all()
    if not quantizer.depth:
        folded, indices = jit(quantizer.fold)(params, state), jnp.arange(quantizer.size)
        np.testing.assert_array_equal(jit(quantizer.decode)(folded, indices), codewords)


@every_kind
def test_the_estimator_has_the_quantized_value(kind):
    quantizer, params, state, quantize = made(kind)
    q = quantize(params, state, encodings(quantizer, 3, 5), jax.random.key(1), train=True)
    np.testing.assert_allclose(q.z_hat, q.z_q, rtol=1e-5, atol=1e-5)


@every_kind
def test_encodings_of_another_width_are_refused(kind):
    quantizer, params, state, _ = made(kind)

    def encode(params, state, z):
        return quantizer.encode(quantizer.fold(params, state), z)

    with pytest.raises(ValueError, match="z has .* channels"):
        jax.eval_shape(encode, params, state, jnp.zeros((3, quantizer.channels + 1)))


@every_kind
def test_every_code_is_counted_once(kind):
    quantizer, params, state, quantize = made(kind)
    q = quantize(params, state, encodings(quantizer, 3, 5), jax.random.key(1), train=False)
    counts = code_counts(distinct(q.indices, quantizer), codes(quantizer))
    assert counts.shape == (codes(quantizer),)
    assert int(counts.sum()) == 15 * max(quantizer.depth, 1)


@every_kind
@pytest.mark.parametrize("case", ["zeros", "equal rows"])
def test_values_and_gradients_are_finite_where_vectors_vanish_or_coincide(kind, case):
    quantizer, params, state, _ = made(kind)
    z = encodings(quantizer, 6)
    z = jnp.zeros_like(z) if case == "zeros" else z.at[:].set(z[0])

    @jit
    def gradients(params, z):
        def loss(params, z):
            q = quantizer(
                params, state, z, straight_through="encoder", train=True, rng=jax.random.key(1)
            )
            return q.loss + jnp.sum(q.z_hat), q

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, z)

    found, q = gradients(params, z)
    arrays = [q.z_q, q.z_hat, q.loss, *jax.tree.leaves(found)]
    assert all(np.isfinite(array).all() for array in arrays)


@every_kind
def test_the_state_is_no_business_of_the_values(kind):
    """Statistics go through `advance` alone: a step's values depend on the state before it."""
    quantizer, params, state, quantize = made(kind)
    z, key = encodings(quantizer, 3, 5), jax.random.key(1)
    q = quantize(params, state, z, key, train=True)
    parts = jax.tree.map(lambda leaf: leaf[None], q.statistics)
    advanced = jit(quantizer.advance)(params, state, parts, jax.random.key(2))
    shapes = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
    assert shapes(advanced.params) == shapes(params)
    assert shapes(advanced.state) == shapes(state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(advanced[:2]))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - DRAWN_BY_PART))
def test_parts_of_a_batch_advance_the_state_as_the_whole_of_it(kind):
    quantizer, params, state, quantize = made(kind)
    z, key = encodings(quantizer, 8), jax.random.key(2)
    whole = quantize(params, state, z, key, train=True).statistics
    halves = [quantize(params, state, half, key, train=True).statistics for half in (z[:4], z[4:])]
    as_one = jax.tree.map(lambda leaf: leaf[None], whole)
    as_two = jax.tree.map(lambda *leaves: jnp.stack(leaves), *halves)
    advance = jit(quantizer.advance)
    first, second = (advance(params, state, parts, key) for parts in (as_one, as_two))
    for one, two in zip(jax.tree.leaves(first[:2]), jax.tree.leaves(second[:2]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
