"""EMA: running means against NumPy, who gets which gradient, idle codes and their restart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import brute_force, normal
from kinds import jit

from mq_jax.quantizers.ema import EMA

pytestmark = pytest.mark.usefixtures("float64")

SIZE, DIM = 6, 3
KEY = jax.random.key(3)


def make(**fields):
    """A quantizer, its state, and encodings that choose the first three codes alone."""
    quantizer = EMA(SIZE, DIM, **fields)
    state = {"counts": np.ones(SIZE), "sums": 4 * normal(0, SIZE, DIM).astype(np.float64)}
    near = state["sums"][np.arange(12) % 3]
    z = near + 0.1 * normal(1, 12, DIM)
    assert set(brute_force(z, state["sums"])) == {0, 1, 2}
    return quantizer, state, z


def quantize(quantizer, state, z, rng=None):
    return quantizer((), state, z, straight_through="encoder", train=True, rng=rng)


@functools.partial(jit, static_argnums=0)
def advance(quantizer, state, parts, rng=None):
    """(state, codewords) after a step on a batch in parts, f[parts, N, D]."""
    keys = jax.random.split(jax.random.key(7), len(parts))
    observe = jax.vmap(lambda z, key: quantize(quantizer, state, z, key).statistics)
    state = quantizer.advance((), state, observe(parts, keys), rng).state
    return state, quantizer.fold((), state)


def fold(state, epsilon=1e-5):
    """The codewords."""
    total = state["counts"].sum()
    smooth = (state["counts"] + epsilon) / (total + SIZE * epsilon) * total
    return state["sums"] / smooth[:, None]


def test_the_state_starts_with_counts_of_one_and_sums_that_are_the_codewords():
    quantizer, *_ = make()
    params, state = jit(quantizer.init)(jax.random.key(0))
    assert jax.tree.leaves(params) == []
    np.testing.assert_array_equal(state["counts"], np.ones(SIZE))
    np.testing.assert_allclose(jit(quantizer.fold)(params, state), state["sums"], rtol=1e-6)


def test_a_step_is_the_formula():
    quantizer, state, z = make(decay=0.9, epsilon=1e-3)
    indices = brute_force(z, fold(state, 1e-3))
    n, m = np.bincount(indices, minlength=SIZE), np.zeros((SIZE, DIM))
    np.add.at(m, indices, z)
    expected = {
        "counts": 0.9 * state["counts"] + 0.1 * n,
        "sums": 0.9 * state["sums"] + 0.1 * m,
    }
    after, codewords = advance(quantizer, state, z[None])
    np.testing.assert_allclose(after["counts"], expected["counts"])
    np.testing.assert_allclose(after["sums"], expected["sums"])
    np.testing.assert_allclose(codewords, fold(expected, 1e-3))


def test_a_code_that_the_first_batch_leaves_idle_stays_where_it_is():
    """Counts that start at 0 would throw it (1 - eps) / eps times as far: 99,000 at d = 0.99."""
    quantizer, state, z = make()
    before = fold(state)
    _, codewords = advance(quantizer, state, z[None])
    np.testing.assert_allclose(codewords[3:], before[3:], rtol=2e-5)
    n = np.bincount(brute_force(z, before), minlength=SIZE)
    from_zero = fold({"counts": 0.01 * n, "sums": 0.99 * state["sums"]})
    assert np.abs(from_zero[3:] / before[3:]).min() > 9e4


def test_codewords_stay_finite_however_long_they_are_idle():
    quantizer, state, z = make()
    counts = np.array([1, 1, 1, 1e-6, 1e-30, 0.0])
    idle = {"counts": counts, "sums": state["sums"] * counts[:, None]}
    _, codewords = advance(quantizer, idle, z[None])
    assert np.isfinite(codewords).all()


def test_encodings_get_the_decoders_gradient_and_the_commitment_and_codewords_nothing():
    quantizer, state, z = make(commitment=0.25)
    g = normal(2, *z.shape).astype(np.float64)
    codewords = fold(state)
    z_q = codewords[brute_force(z, codewords)]

    @jit
    def gradients(z, state):
        def values(z, state):
            q = quantize(quantizer, state, z)
            return jnp.sum(g * q.z_hat), q.loss

        return values(z, state)[1], jax.jacrev(values, argnums=(0, 1))(z, state)

    loss, (decoded, pulled) = gradients(z, state)
    np.testing.assert_allclose(loss, 0.25 * np.mean((z - z_q) ** 2))
    np.testing.assert_array_equal(decoded[0], g)
    np.testing.assert_allclose(pulled[0], 0.25 * 2 * (z - z_q) / z.size)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((decoded[1], pulled[1])))


def test_a_restart_sets_codeword_sum_and_count_together_and_lasts():
    """Of the codeword alone it would be undone by the next step, which reads sum and count."""
    quantizer, state, z = make(restart_below=0.995, restart_count=2.0)
    state, codewords = jax.tree.map(np.asarray, advance(quantizer, state, z[None], KEY))
    np.testing.assert_array_equal(state["counts"][3:], 2.0)
    np.testing.assert_allclose(state["sums"][3:], 2 * codewords[3:], rtol=1e-4)
    which = brute_force(codewords[3:], z)
    np.testing.assert_allclose(codewords[3:], z[which], rtol=1e-4)
    assert len(set(which)) == 3
    _, again = advance(quantizer, state, z[None], KEY)
    # A step of d = 0.99 moves a mean by hundredths of the encodings' spread, 0.1.
    np.testing.assert_allclose(again[3:], codewords[3:], atol=0.05)


def test_codes_in_use_do_not_restart():
    still, state, z = make()
    restarting, *_ = make(restart_below=0.995, restart_count=2.0)
    (one, _), (other, _) = (advance(it, state, z[None], KEY) for it in (still, restarting))
    np.testing.assert_array_equal(one["sums"][:3], other["sums"][:3])
    np.testing.assert_array_equal(one["counts"][:3], other["counts"][:3])


def test_restarts_draw_tokens_evenly_from_every_part_of_a_batch():
    size, tokens = 4000, np.arange(1.0, 9.0)
    quantizer = EMA(size, 1, restart_below=1.0)
    state = {"counts": np.full(size, 0.5), "sums": np.zeros((size, 1))}
    after, _ = jax.tree.map(np.asarray, advance(quantizer, state, tokens.reshape(2, 4, 1), KEY))
    values, times = np.unique(after["sums"][after["counts"] == 1.0], return_counts=True)
    np.testing.assert_array_equal(values, tokens)
    np.testing.assert_allclose(times / times.sum(), 1 / 8, atol=0.02)


def test_a_code_that_would_restart_every_step_is_refused():
    with pytest.raises(ValueError, match="restart_below is 2.0 and restart_count 1.0; expected"):
        EMA(SIZE, DIM, restart_below=2.0)
