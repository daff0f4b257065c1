"""Sampling: caches, seeds, batches, guidance, completion; the order in which places are filled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny_prior import PRIORS, draw, make_batch, make_prior

from mq_jax.generation.sampling import Sampling, draw_places, image_keys
from mq_jax.generation.space import TokenSpace

LEVELS, BATCH = 2, 4
SLOW_MASKED = ("decoder", pytest.param("masked", marks=pytest.mark.slow))
RNG = jax.random.key(5)
IMAGES = jnp.arange(BATCH)
GIVEN = make_batch(TokenSpace(3, 4, LEVELS, 7, 3))[0]
# Where levels are nothing to the fact.
ONE = make_batch(TokenSpace(3, 4, 1, 7, 3))[0]


@functools.cache
def prior_of(kind, levels=LEVELS):
    prior = make_prior(kind, levels=levels)
    return prior, draw(prior)


@functools.cache
def sampler(kind, levels, **settings):
    """Compiled once for each kind and setting; tokens of images by their labels."""
    prior, params = prior_of(kind, levels)
    sampling = Sampling(**{"steps": 5, **settings})

    @tiny.jit
    def run(images, labels, rng, known):
        given = jnp.asarray(ONE if levels == 1 else GIVEN)[images % BATCH]
        return prior.sample(params, images, labels, rng, sampling, given=given, known=known)

    return run


def sample(kind, images=IMAGES, rng=RNG, known=None, levels=1, **settings):
    known = np.zeros((len(images), 12), bool) if known is None else known
    return np.asarray(sampler(kind, levels, **settings)(images, images % 4, rng, known))


@pytest.mark.parametrize("batch", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_cached_logits_are_those_of_the_whole_pass(batch):
    prior, params = prior_of("decoder")
    variables, front = {"params": params}, 5
    tokens, labels, _ = make_batch(prior.space)
    apply = functools.partial(prior.model.apply, variables)

    @tiny.jit
    def stepwise(tokens, labels):
        cache = apply(len(tokens), method="cache")
        x, cache = apply(labels, tokens[:, :front], cache, method="prefill")

        def step(carry, place):
            x, cache = carry
            context, cache = apply(x, place, cache, method="step")
            own, levels, found = jnp.take(tokens, place[None], axis=1), context, []
            small = apply(len(tokens), method="level_cache")
            for level in range(LEVELS):
                logits, small = apply(levels, level, small, method="level_step")
                levels = apply(own[..., level], level, method="embed_level")
                found.append(logits[:, 0])
            return (apply(own, method="embed"), cache), jnp.stack(found, axis=1)

        return jax.lax.scan(step, (x, cache), jnp.arange(front, 12))[1].swapaxes(0, 1)

    whole = tiny.jit(lambda t, y: apply(t, y))(tokens, labels)
    np.testing.assert_allclose(
        stepwise(tokens[:batch], labels[:batch]), whole[:batch, front:], atol=1e-5
    )


@pytest.mark.parametrize("kind", SLOW_MASKED)
def test_an_image_depends_on_the_seed_and_its_number_and_on_no_batch(kind):
    together = sample(kind)
    np.testing.assert_array_equal(sample(kind), together)
    np.testing.assert_array_equal(sample(kind, IMAGES[1:2]), together[1:2])
    assert (sample(kind, rng=jax.random.key(6)) != together).any(axis=(1, 2)).all()
    # Another image of the same class, of the same seed.
    assert (sample(kind, IMAGES + 4) != together).any(axis=(1, 2)).all()
    assert together.min() >= 0 and together.max() < 7 and together.dtype == np.int32


@pytest.mark.slow
@pytest.mark.parametrize("kind", PRIORS)
def test_guidance_of_one_is_none_and_more_is_another_draw(kind):
    # In float32 the scale is 1, with the batch doubled.
    np.testing.assert_array_equal(sample(kind, guidance=1 + 1e-9), sample(kind))
    label, null = sample(kind, guidance=4.0)[:3], sample(kind)[:3]
    assert (label != null).any()


def test_a_guided_draw_has_the_logits_of_its_formula():
    prior, params = prior_of("decoder")
    variables = {"params": params}
    context = jax.random.normal(RNG, (2 * BATCH, 1, 16))

    @tiny.jit
    def run(context):
        apply = functools.partial(prior.model.apply, variables)
        cache = apply(2 * BATCH, method="level_cache")
        first, _ = apply(context, 0, cache, method="level_step")
        keys = image_keys(RNG, IMAGES)
        return draw_places(prior.model, variables, context, keys, Sampling(top_k=1), 3.0)[0], first

    drawn, first = run(context)
    first = np.asarray(first)[:, 0]
    expected = first[BATCH:] + 3 * (first[:BATCH] - first[BATCH:])
    np.testing.assert_array_equal(drawn[:, 0, 0], expected.argmax(-1))


@pytest.mark.slow
def test_the_likeliest_code_alone_is_what_whole_passes_choose():
    prior, params = prior_of("decoder")
    tokens = np.zeros_like(GIVEN)
    whole = tiny.jit(lambda tokens: prior.model.apply({"params": params}, tokens, IMAGES))
    for place in range(12):
        for level in range(LEVELS):
            tokens[:, place, level] = np.asarray(whole(tokens))[:, place, level].argmax(-1)
    np.testing.assert_array_equal(sample("decoder", levels=LEVELS, top_k=1), tokens)


@pytest.mark.slow
def test_the_surest_place_is_filled_first_without_noise():
    """One place a step, each as whole passes over what is known choose."""
    prior, params = prior_of("masked")
    tokens, known = np.zeros_like(GIVEN), np.zeros((BATCH, 12), bool)
    whole = tiny.jit(lambda *args: prior.model.apply({"params": params}, *args))
    rows = np.arange(BATCH)
    for _ in range(12):
        drawn, log_p = np.zeros_like(tokens), np.zeros((BATCH, 12))
        for level in range(LEVELS):
            guess = np.where(known[..., None], tokens, drawn)
            logits = np.asarray(whole(guess, IMAGES, known), np.float64)[:, :, level]
            drawn[..., level] = logits.argmax(-1)
            log_p += logits.max(-1) - np.log(np.exp(logits).sum(-1))
        place = np.where(known, -np.inf, log_p).argmax(-1)
        tokens[rows, place], known[rows, place] = drawn[rows, place], True
    # As many steps as leave one place fewer each: the schedule's floors never leave fewer.
    found = sample("masked", levels=LEVELS, top_k=1, choice_noise=0.0, steps=400)
    np.testing.assert_array_equal(found, tokens)


def test_a_masked_prior_fills_each_place_once_and_no_given_one():
    prior, params = prior_of("masked")
    known = make_batch(prior.space)[2]
    known[0], known[1] = True, False
    fill = tiny.jit(
        lambda known: prior.fill(
            params, IMAGES, IMAGES, RNG, Sampling(steps=5), given=GIVEN, known=known
        )
    )
    tokens, kept = map(np.asarray, fill(known))
    np.testing.assert_array_equal(kept.sum(0), ~known)
    np.testing.assert_array_equal(tokens[known], GIVEN[known])
    # 12 cos(pi (t + 1) / 10) places are left, of an image with none given.
    left = 12 - kept[:, 1].sum(-1).cumsum()
    assert left.tolist() == [11, 9, 7, 3, 0]
    # The first image is all given; the others are not what was there before.
    assert not kept[:, 0].any() and (tokens[1:] != GIVEN[1:]).any(axis=(1, 2)).all()


def test_given_tokens_stay_and_are_read_at_once_where_they_come_first():
    prior, params = prior_of("decoder", 1)
    upper = np.arange(12) < 6
    scattered = make_batch(prior.space)[2]
    for known in (np.broadcast_to(upper, (BATCH, 12)), scattered):
        tokens = sample("decoder", known=known)
        np.testing.assert_array_equal(tokens[known], ONE[known])
        assert (tokens != ONE)[~known].any()
    prefilled = tiny.jit(
        lambda rng: prior.sample(
            params, IMAGES, IMAGES % 4, rng, Sampling(), given=ONE, known=upper, front=6
        )
    )
    np.testing.assert_array_equal(
        prefilled(RNG), sample("decoder", known=np.broadcast_to(upper, (BATCH, 12)))
    )


@pytest.mark.slow
def test_codes_are_drawn_as_often_as_they_are_likely():
    space = TokenSpace(1, 2, 1, 3)
    prior = make_prior("decoder", space=space)
    params, images = draw(prior), jnp.arange(6000)
    tokens = np.asarray(
        tiny.jit(lambda: prior.sample(params, images, None, RNG, Sampling(temperature=0.8)))()
    )[..., 0]
    pairs = np.array([[[a], [b]] for a in range(3) for b in range(3)], np.int32)
    logits = tiny.jit(lambda: prior.model.apply({"params": params}, pairs, None))()[:, :, 0] / 0.8
    log_p = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), pairs, -1).sum((1, 2))
    counts = np.bincount(3 * tokens[:, 0] + tokens[:, 1], minlength=9)
    expected = 6000 * np.exp(log_p)
    # Chi-square of 8 degrees of freedom: above 26 once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 26
    assert expected.max() > 2 * expected.min()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"labels": IMAGES[:2]}, r"expected whole numbers \[4\]"),
        ({"known": None}, "without the places that are known"),
        ({"known": np.ones(5, bool)}, r"Known places are bool\[5\]; expected bool\[12\]"),
        ({"given": GIVEN[:, :5]}, r"Given tokens are int32\[4, 5, 2\]"),
    ],
)
@pytest.mark.parametrize("kind", PRIORS)
def test_a_draw_that_does_not_fit_is_refused(kind, changes, message):
    prior, params = prior_of(kind)
    settings = {"labels": IMAGES, "given": GIVEN, "known": np.ones(12, bool), **changes}
    with pytest.raises(ValueError, match=message):
        prior.sample(params, IMAGES, settings.pop("labels"), RNG, Sampling(), **settings)


def test_guidance_needs_classes():
    prior = make_prior("decoder", space=TokenSpace(3, 4, 1, 7))
    with pytest.raises(ValueError, match="Sampling.guidance is 2.0 and there are no classes"):
        prior.sample({}, IMAGES, None, RNG, Sampling(guidance=2.0))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 0.0}, "Sampling.temperature is 0.0; expected above 0"),
        ({"top_p": 0.0}, r"Sampling.top_p is 0.0; expected in \(0, 1\]"),
        ({"top_k": -1}, "expected a whole number, at least 0"),
        ({"guidance": float("inf")}, "is inf; expected at least 0 and finite"),
        ({"steps": 2.5}, "is 2.5; expected a whole number"),
        ({"guidance_schedule": "cubic"}, "'cubic'; expected one of"),
        ({"steps": 0}, "expected a whole number, at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
