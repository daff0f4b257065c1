"""SQ-VAE: values against NumPy, slopes against finite differences, the schedule of tau."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from arrays import brute_force, normal
from kinds import jit, table
from slopes import assert_trees_close, slopes

from mq_jax.quantizers.sqvae import SQVAE

pytestmark = pytest.mark.usefixtures("float64")

IMAGES, POSITIONS, SIZE, DIM = 2, 3, 5, 4
KEY = jax.random.key(3)
both_variances = pytest.mark.parametrize("variance", ["I", "III"])


def make(variance, **fields):
    """(quantizer, params, z f64[2, 3, channels])."""
    quantizer = SQVAE(table(size=SIZE, dim=DIM), variance, **fields)
    params = {
        "codebook": {"embedding": normal(0, SIZE, DIM).astype(np.float64)},
        "log_variance": np.float64(0.3),
    }
    return quantizer, params, normal(1, IMAGES, POSITIONS, quantizer.channels).astype(np.float64)


def quantize(quantizer, params, z, train=True, state=0, rng=KEY):
    return quantizer(params, state, z, straight_through="encoder", train=train, rng=rng)


def derived(params, z, tau=1.0):
    """By the formulas: (indices, z_q in training, its terms, z_q in evaluation, its terms)."""
    codewords = params["codebook"]["embedding"]
    means, own = z[..., :DIM], 1.0
    if z.shape[-1] > DIM:
        own = np.exp(z[..., DIM:].mean(axis=-1, keepdims=True))
    w = np.broadcast_to(1 / (2 * (own + np.exp(params["log_variance"]))), means.shape[:-1] + (1,))
    square = np.sum((means[..., None, :] - codewords) ** 2, axis=-1)
    p = scipy.special.softmax(-w * square, axis=-1)
    noise = jax.random.gumbel(jax.random.fold_in(KEY, 0), (IMAGES * POSITIONS, SIZE), np.float64)
    y = scipy.special.softmax((-w * square + np.reshape(noise, square.shape)) / tau, axis=-1)
    indices = brute_force(means, codewords)
    found = [indices]
    for z_q in (y @ codewords, codewords[indices]):
        terms = {
            "negative_entropy": -scipy.special.entr(p).sum() / IMAGES,
            "regularisation": np.sum(w * (means - z_q) ** 2) / IMAGES,
        }
        found += [z_q, terms]
    return found


@both_variances
def test_training_and_evaluation_are_the_formulas(variance):
    quantizer, params, z = make(variance)
    run = jit(functools.partial(quantize, quantizer), static_argnames="train")
    indices, z_q, terms, hard, hard_terms = derived(params, z, tau=np.exp(-1e-5 * 40_000))
    trained = run(params, z, state=40_000)
    evaluated = run(params, z, train=False)
    np.testing.assert_array_equal(trained.indices, indices)
    np.testing.assert_allclose(trained.z_hat, z_q)
    np.testing.assert_array_equal(trained.z_hat, trained.z_q)
    assert_trees_close(trained.terms, terms)
    np.testing.assert_allclose(trained.loss, sum(terms.values()))
    np.testing.assert_array_equal(evaluated.indices, indices)
    np.testing.assert_array_equal(evaluated.z_hat, hard)
    assert_trees_close(evaluated.terms, hard_terms)


@both_variances
@pytest.mark.parametrize("part", ["decoder", "loss"])
def test_decoder_and_loss_reach_z_the_variances_and_every_codeword(variance, part):
    quantizer, params, z = make(variance, chunk=2)
    g = normal(2, IMAGES, POSITIONS, DIM).astype(np.float64)

    def value(arguments):
        q = quantize(quantizer, *arguments)
        return jnp.sum(g * q.z_hat) if part == "decoder" else q.loss

    found = jit(jax.grad(value))((params, z))
    assert_trees_close(found, slopes(value, (params, z)), rtol=1e-6, atol=1e-8)
    to_params, to_z = found
    assert np.abs(to_params["codebook"]["embedding"]).min() > 0
    assert to_params["log_variance"] != 0 and np.abs(to_z).min() > 0


@both_variances
def test_terms_of_parts_of_a_batch_average_to_those_of_the_whole(variance):
    quantizer, params, z = make(variance)
    run = jit(functools.partial(quantize, quantizer, train=False))
    whole = run(params, z).loss
    np.testing.assert_allclose(np.mean([run(params, part).loss for part in (z[:1], z[1:])]), whole)


def test_type_three_reads_a_variance_of_each_position_behind_its_channels():
    quantizer, params, z = make("III")
    assert (quantizer.channels, quantizer.dim) == (2 * DIM, DIM)
    sure = z.copy()
    sure[0, 0, DIM:] = -20
    params["log_variance"] = np.float64(-20.0)
    run = jit(functools.partial(quantize, quantizer, rng=KEY))
    vague, certain = run(params, z), run(params, sure)
    index = certain.indices[0, 0]
    np.testing.assert_allclose(certain.z_q[0, 0], params["codebook"]["embedding"][index], atol=1e-3)
    np.testing.assert_array_equal(vague.z_q[1], certain.z_q[1])


def test_the_variance_starts_at_twenty_and_the_steps_at_none():
    params, steps = jit(SQVAE(table()).init)(KEY)
    np.testing.assert_allclose(params["log_variance"], np.log(20))
    assert steps == 0 and steps.dtype == jnp.int32


@pytest.mark.parametrize(
    "steps, tau", [(0, 1.0), (100_000, np.exp(-1)), (460_000, np.exp(-4.6)), (10_000_000, 0.01)]
)
def test_the_temperature_decays_with_the_steps_and_is_clamped_below(steps, tau):
    np.testing.assert_allclose(SQVAE(table()).tau(jnp.asarray(steps)), tau)


def test_a_draw_at_the_lowest_temperature_is_finite_with_finite_slopes():
    quantizer, params, z = make("I", chunk=2)

    def value(z, params):
        return jnp.sum(quantize(quantizer, params, z, state=10_000_000).z_hat)

    value, gradient = jit(jax.value_and_grad(value))(z, params)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_a_step_counts_as_one():
    quantizer, params, _ = make("I")
    assert quantizer.advance(params, jnp.asarray(4), (), KEY).state == 5


def test_an_unknown_variance_is_refused():
    with pytest.raises(ValueError, match="variance is 'V'; expected one of"):
        make("V")
