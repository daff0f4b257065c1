"""Nats and bits, label smoothing, which tokens count."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny_prior import draw, make_batch, make_prior

from mq_jax.generation.guidance import drop_labels
from mq_jax.generation.losses import bits, cross_entropy
from mq_jax.generation.masking import choose_places, cosine_count, still_masked, uniform_count

RNG = jax.random.key(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_of_smoothed_labels(smoothing):
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    tokens = np.random.default_rng(1).integers(0, 5, (2, 3))
    target = (1 - smoothing) * np.eye(5)[tokens] + smoothing / 5
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = cross_entropy(jnp.asarray(logits), jnp.asarray(tokens), smoothing)
    np.testing.assert_allclose(loss, -(target * log_p).sum(-1), rtol=1e-5)


def test_a_byte_has_eight_bits():
    assert bits(math.log(256)) == pytest.approx(8)


@pytest.mark.slow
def test_a_decoder_counts_every_token_once():
    prior = make_prior("decoder", levels=2)
    params, (tokens, labels, _) = draw(prior), make_batch(prior.space)
    run = tiny.jit(
        lambda p: (
            prior.likelihood(p, tokens, labels, RNG),
            prior.model.apply({"params": p}, tokens, labels),
        )
    )
    found, logits = run(params)
    expected = cross_entropy(logits, tokens)
    assert found.tokens == tokens.size
    np.testing.assert_allclose(found.nats, expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(found.objective, expected.mean(), rtol=1e-5)


@pytest.mark.slow
def test_a_masked_prior_counts_the_places_that_it_masks():
    prior = make_prior("masked", levels=2)
    params, (tokens, labels, _) = draw(prior), make_batch(prior.space)

    @tiny.jit
    def run(params):
        way, place, *_ = jax.random.split(RNG, 4)
        counts = cosine_count(jax.random.uniform(way, len(tokens)), prior.space.places)
        masked = choose_places(place, counts, prior.space.places)
        logits = prior.model.apply({"params": params}, tokens, labels, ~masked)
        return prior.loss(params, tokens, labels, RNG, train=False), masked, logits

    found, masked, logits = run(params)
    each = np.asarray(cross_entropy(logits, tokens))[np.asarray(masked)]
    assert 0 < each.size < tokens.size and found.tokens == each.size
    np.testing.assert_allclose(found.nats, each.sum(), rtol=1e-5)
    np.testing.assert_allclose(found.objective, each.mean(), rtol=1e-5)


@pytest.mark.slow
def test_the_bound_weighs_images_alike_whatever_is_masked():
    """Of a prior that takes all codes for equally likely, it is ln K a token."""
    prior = make_prior("masked")
    params, (tokens, labels, _) = draw(prior), make_batch(prior.space)
    params["levels"]["head"] *= 0
    found = tiny.jit(lambda p: prior.likelihood(p, tokens, labels, RNG))(params)
    np.testing.assert_allclose(found.nats / found.tokens, np.log(7), rtol=1e-5)
    assert found.tokens == tokens.size


def test_masks_have_as_many_places_as_the_schedule_says():
    way = jnp.array([0.0, 0.5, 2 / 3, 0.999])
    cosine, uniform = tiny.jit(lambda r: (cosine_count(r, 16), uniform_count(r, 16)))(way)
    np.testing.assert_array_equal(cosine, [16, 12, 8, 1])
    np.testing.assert_array_equal(uniform, [1, 9, 11, 16])
    counts = np.tile([1, 4, 7, 4], 1000)
    masked = np.asarray(tiny.jit(lambda counts: choose_places(RNG, counts, 16))(counts))
    np.testing.assert_array_equal(masked.sum(-1), counts)
    np.testing.assert_allclose(masked.mean(0), 0.25, atol=0.03)


def test_steps_leave_as_many_places_as_published():
    left, before = [], jnp.array([256])
    after = tiny.jit(lambda before, first, step: still_masked(before, first, step, 8))
    for step in range(8):
        before = after(before, jnp.array([256]), step)
        left.append(int(before[0]))
    expected = [math.floor(256 * math.cos(math.pi / 2 * (t + 1) / 8)) for t in range(7)]
    assert left == [*expected, 0]
    # One place stays until the last step; none is none.
    np.testing.assert_array_equal(after(jnp.array([1, 0, 2]), jnp.array([3, 0, 3]), 0), [1, 0, 1])


def test_labels_are_dropped_at_their_rate():
    labels = jnp.zeros(4000, jnp.int32)
    dropped = drop_labels(labels, 3, 0.1, RNG)
    assert set(np.unique(dropped)) == {0, 3} and 0.08 < np.mean(dropped == 3) < 0.12
    assert drop_labels(None, 0, 0.1, RNG) is None


@pytest.mark.slow
def test_labels_are_dropped_in_training_alone():
    prior = make_prior("decoder", token_dropout=0.0, residual_dropout=0.0, ffn_dropout=0.0)
    params, (tokens, labels, _) = draw(prior), make_batch(prior.space)
    always = type(prior)(prior.model, class_dropout=1.0)

    @tiny.jit
    def run(params):
        null = jnp.full_like(labels, prior.space.null)
        return (
            always.loss(params, tokens, labels, RNG, train=True).nats,
            always.loss(params, tokens, labels, RNG, train=False).nats,
            prior.loss(params, tokens, null, RNG, train=False).nats,
        )

    trained, evaluated, without = run(params)
    np.testing.assert_allclose(trained, without, rtol=1e-6)
    assert abs(evaluated - without) > 0.1
