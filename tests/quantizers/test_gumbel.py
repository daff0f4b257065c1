"""Gumbel-softmax: hard forward, soft backward, quiet in evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from arrays import normal
from kinds import jit, table
from slopes import assert_trees_close, slopes

from mq_jax.quantizers.gumbel import Gumbel

pytestmark = pytest.mark.usefixtures("float64")

N, SIZE, DIM, CHANNELS = 4, 6, 3, 2
KEY = jax.random.key(3)


def make(**fields):
    """(quantizer, params, z), in float64."""
    quantizer = Gumbel(table(size=SIZE, dim=DIM), CHANNELS, **fields)
    params = {
        "codebook": {"embedding": normal(0, SIZE, DIM)},
        "head": {"kernel": normal(1, CHANNELS, SIZE), "bias": normal(2, SIZE)},
    }
    to_float64 = functools.partial(jax.tree.map, lambda leaf: leaf.astype(np.float64))
    return quantizer, *to_float64((params, normal(3, N, CHANNELS)))


def quantize(quantizer, params, z, train=True, state=0, rng=KEY):
    return quantizer(params, state, z, straight_through="encoder", train=train, rng=rng)


def noisy_logits(params, z):
    noise = jax.random.gumbel(jax.random.fold_in(KEY, 0), (N, SIZE), np.float64)
    return z @ params["head"]["kernel"] + params["head"]["bias"] + np.asarray(noise)


def test_the_head_starts_as_pytorchs_and_codewords_from_a_standard_normal():
    quantizer = Gumbel(table(size=2000, dim=4), 16)
    params, steps = jit(quantizer.init)(jax.random.key(0))
    for leaf in params["head"].values():
        np.testing.assert_allclose(np.abs(leaf).max(), 16**-0.5, rtol=1e-2)
    np.testing.assert_allclose(np.std(params["codebook"]["embedding"]), 1.0, rtol=0.05)
    assert steps == 0 and steps.dtype == jnp.int32


def test_training_decodes_the_codeword_that_was_drawn():
    quantizer, params, z = make()
    q = jit(functools.partial(quantize, quantizer))(params, z)
    drawn = np.argmax(noisy_logits(params, z), axis=1)
    np.testing.assert_array_equal(q.indices, drawn)
    np.testing.assert_array_equal(q.z_hat, params["codebook"]["embedding"][drawn])


def test_evaluation_takes_the_largest_logit_and_draws_nothing():
    quantizer, params, z = make()
    q = jit(lambda *a: quantize(quantizer, *a, train=False, rng=None))(params, z)
    logits = z @ params["head"]["kernel"] + params["head"]["bias"]
    best = np.argmax(logits, axis=1)
    np.testing.assert_array_equal(q.indices, best)
    np.testing.assert_array_equal(q.z_hat, params["codebook"]["embedding"][best])


def test_the_decoders_gradient_is_the_softmaxs_and_reaches_chosen_codewords_whole():
    quantizer, params, z = make(temperature=0.7, last_temperature=0.7)
    g = normal(4, N, DIM).astype(np.float64)

    @jit
    def gradients(params, z):
        return jax.grad(lambda *a: jnp.sum(g * quantize(quantizer, *a).z_hat), argnums=(0, 1))(
            params, z
        )

    logits = noisy_logits(params, z)
    y = scipy.special.softmax(logits / 0.7, axis=1)
    to_y = g @ params["codebook"]["embedding"].T
    to_logits = y * (to_y - np.sum(y * to_y, axis=1, keepdims=True)) / 0.7
    to_codewords = np.zeros((SIZE, DIM))
    np.add.at(to_codewords, np.argmax(logits, axis=1), g)
    expected = {
        "codebook": {"embedding": to_codewords},
        "head": {"kernel": z.T @ to_logits, "bias": to_logits.sum(axis=0)},
    }
    to_params, to_z = gradients(params, z)
    np.testing.assert_allclose(to_z, to_logits @ params["head"]["kernel"].T, rtol=1e-9)
    assert_trees_close(to_params, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(to_params["head"]["bias"]).min() > 0


def test_the_loss_is_the_divergence_from_the_uniform_distribution():
    quantizer, params, z = make(kl_weight=0.3)
    p = scipy.special.softmax(z @ params["head"]["kernel"] + params["head"]["bias"], axis=1)
    kl = np.mean(np.sum(p * np.log(SIZE * p), axis=1))

    def loss(arguments):
        return quantize(quantizer, *arguments).loss

    q = jit(functools.partial(quantize, quantizer))(params, z)
    np.testing.assert_allclose(q.terms["kl"], kl)
    np.testing.assert_allclose(q.loss, 0.3 * kl)
    found = jit(jax.grad(loss))((params, z))
    assert_trees_close(found, slopes(loss, (params, z)), rtol=1e-6, atol=1e-9)
    assert not found[0]["codebook"]["embedding"].any()


@pytest.mark.parametrize(
    "steps, tau",
    [(0, 1.0), (25, 0.5 + 0.5 * (1 + 0.5**0.5) / 2), (50, 0.75), (100, 0.5), (999, 0.5)],
)
def test_the_temperature_falls_by_half_a_cosine_and_stays(steps, tau):
    quantizer, *_ = make(last_temperature=0.5, anneal_steps=100)
    np.testing.assert_allclose(quantizer.tau(jnp.asarray(steps)), tau)


def test_a_step_counts_as_one_whatever_the_parts():
    quantizer, params, _ = make()
    assert quantizer.advance(params, jnp.asarray(4), (), KEY).state == 5


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="last_temperature 0; expected more than 0"):
        make(last_temperature=0)
