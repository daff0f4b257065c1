"""A loaded prior: what it draws, what it completes, and what it is not asked."""

import jax
import numpy as np
import prior_runs
import pytest
import token_sets

import mq_jax
from mq_jax.devices.sharding import make_mesh
from mq_jax.generation import Sampling
from mq_jax.samplers import Sampler, restored_prior

CLASSES = [0, 2, 1, 1, 0, 2, 2, 0, 1]
SAMPLING = Sampling(guidance=2.0, top_k=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prior_runs.write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def sampler(folder):
    return mq_jax.load_prior(folder)


@pytest.fixture(scope="module")
def drawn(sampler):
    return sampler.sample(CLASSES, 5, sampling=SAMPLING)


def test_what_a_run_holds_draws_what_its_prior_draws_in_memory(folder, sampler, drawn):
    found = restored_prior(folder)
    labels, numbers = np.int32(CLASSES), np.arange(len(CLASSES), dtype=np.int32)
    expected = jax.jit(
        lambda params: found.prior.sample(params, numbers, labels, jax.random.key(5), SAMPLING)
    )(found.params)
    np.testing.assert_array_equal(drawn.tokens.reshape(9, 16, 1), expected)
    assert drawn.tokens.shape == (9, 4, 4) and drawn.images.shape == (9, 16, 16, 3)
    assert drawn.images.dtype == np.uint8
    # Programs of other batch sizes may differ by one level.
    decoded = sampler.tokenizer.decode(drawn.tokens).astype(int)
    np.testing.assert_allclose(drawn.images, decoded, atol=1)
    assert repr(sampler) == "Sampler(autoregressive prior, step 4, 4 x 4 codes of 16, classes=3)"


def test_an_image_depends_on_its_number_and_not_on_the_batch_that_it_is_drawn_in(
    folder, sampler, drawn
):
    # Batches of 8 and of 16 on the eight devices; the last ones are filled up.
    again = sampler.sample(CLASSES, 5, sampling=SAMPLING, batch_size=3)
    np.testing.assert_array_equal(again.tokens, drawn.tokens)
    np.testing.assert_allclose(again.images, drawn.images.astype(int), atol=1)
    # Of a later batch alone, as who goes on draws it.
    labels, settings = np.int32(CLASSES), {"sampling": SAMPLING, "batch_size": 3}
    ((first, rest),) = sampler.batches(labels, 5, **settings, wanted={8})
    assert first == 8
    np.testing.assert_array_equal(rest.tokens, drawn.tokens[8:])
    np.testing.assert_array_equal(rest.images, again.images[8:])
    one = make_mesh(devices=jax.devices()[:1])
    alone = Sampler(restored_prior(folder), sampler.tokenizer, "abc", one)
    np.testing.assert_array_equal(alone.sample(CLASSES, 5, sampling=SAMPLING).tokens, drawn.tokens)
    other = sampler.sample(CLASSES, 6, sampling=SAMPLING, batch_size=3)
    assert (other.tokens != drawn.tokens).any()


@pytest.mark.parametrize("kind", ["autoregressive", "masked"])
def test_a_completion_keeps_what_is_known(kind, sampler, drawn, tmp_path):
    if kind == "masked":
        given = {"steps": (4,), "prior__kind": kind, "prior__layers": 1}
        folder = prior_runs.write_run(tmp_path, "vq residual", classes=0, **given)
        sampler = mq_jax.load_prior(folder)
    shape = drawn.tokens.shape + ((3,) if kind == "masked" else ())
    tokens = np.random.default_rng(0).integers(0, 16, shape, np.int32)
    upper = np.arange(4)[:, None].repeat(4, axis=1) < 2
    sampling = Sampling(steps=3)
    found = sampler.complete(tokens, upper, 1, sampling=sampling)
    np.testing.assert_array_equal(found.tokens[:, :2], tokens[:, :2])
    assert (found.tokens[:, 2:] != tokens[:, 2:]).any()
    # Half a row is not read at once with those above it.
    apart = upper.copy()
    apart[1, 3:] = False
    again = sampler.complete(tokens, apart, 1, sampling=sampling)
    np.testing.assert_array_equal(again.tokens[:, :2][:, apart[:2]], tokens[:, apart])
    whole = sampler.complete(tokens, np.ones((9, 4, 4), bool), 1, sampling=sampling)
    np.testing.assert_array_equal(whole.tokens, tokens)


def test_what_is_known_of_an_image_is_what_its_tokenizer_says(sampler, drawn):
    left = np.arange(4).repeat(4).reshape(4, 4).T < 2
    given = sampler.complete(drawn.images, left, 1, sampling=Sampling(steps=3))
    encoded = sampler.tokenizer.encode(drawn.images)
    np.testing.assert_array_equal(given.tokens[:, :, :2], encoded[:, :, :2])
    assert (given.tokens[:, :, 2:] != encoded[:, :, 2:]).any()


def test_what_does_not_fit_a_prior_is_refused_before_anything_is_compiled(sampler, tmp_path):
    tokens, known = np.zeros((2, 4, 4), np.int32), np.ones((4, 4), bool)
    for call, message in (
        (
            lambda: sampler.sample([0, 3], 0),
            r"Classes are int64\[2\] \[0, 3\]; expected .* \[0, 3\)",
        ),
        (lambda: sampler.sample(-1, 0), "The number of images is -1"),
        (lambda: sampler.sample(1, 0, batch_size=0), "The batch size is 0"),
        (lambda: sampler.complete(tokens, known[1:], 0), r"Known places are bool\[3, 4\]"),
        (lambda: sampler.complete(tokens + 16, known, 0), r"Tokens lie in \[16, 16\]"),
        (lambda: sampler.complete(tokens[:, 1:], known, 0), r"expected tokens i\[B, 4, 4\] or"),
        (
            lambda: sampler.complete(tokens, known, 0, classes=[1]),
            "There are 1 classes; expected 2",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert sampler.sample([], 0).images.shape == (0, 16, 16, 3)
    given = {"steps": (4,), "prior__class_dropout": 0.0}
    strict = mq_jax.load_prior(prior_runs.write_run(tmp_path / "strict", **given))
    without = mq_jax.load_prior(prior_runs.write_run(tmp_path / "without", classes=0, steps=(4,)))
    guided = Sampling(guidance=1.5)
    for call, message in (
        (lambda: strict.sample(4, 0), "class_dropout 0, so it knows no images without their class"),
        (lambda: strict.sample([1], 0, sampling=guided), "instead of guidance 1.5"),
        (lambda: without.sample([1], 0), "The prior knows no classes"),
        (lambda: without.sample(1, 0, sampling=guided), "Guidance is 1.5 and the prior knows no"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_tokens_are_decoded_by_the_tokenizer_that_made_them_alone(folder, tmp_path):
    other = token_sets.write_tokenizer(tmp_path, "vq residual")
    with pytest.raises(ValueError, match="not the tokenizer .*, which made the prior's tokens"):
        mq_jax.load_prior(folder, tokenizer=other)
    with pytest.raises(FileNotFoundError, match="none does not exist; .* --tokenizer=FOLDER"):
        mq_jax.load_prior(folder, tokenizer=tmp_path / "none")
    tokens = token_sets.write_set(tmp_path / "set")
    moved = prior_runs.write_run(tmp_path / "moved", steps=(4,), tokens=str(tokens))
    with pytest.raises(FileNotFoundError, match="is a token set, which does not say where"):
        mq_jax.load_prior(moved)
    given = mq_jax.load_prior(moved, tokenizer=tmp_path / "moved" / "plain")
    assert given.fingerprint == mq_jax.load_prior(folder).fingerprint
    assert given.fingerprint != mq_jax.load_prior(folder, step=9).fingerprint
