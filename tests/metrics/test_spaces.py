"""Feature spaces: which names each has, what the protocol says, and Inception's own input."""

import numpy as np
import pytest
import toy_space

from mq_jax.metrics import spaces
from mq_jax.models import inception


def test_a_name_belongs_to_one_space_and_is_told_apart():
    assert set(spaces.INCEPTION_NAMES).isdisjoint(spaces.VGG_NAMES)
    with pytest.raises(ValueError, match="'gfd' is no measure of samples.*gfid"):
        spaces.load_spaces(["gfd"], lpips_dir="", weights_dir="")
    with pytest.raises(ValueError, match="no measure is named"):
        spaces.load_spaces([], lpips_dir="", weights_dir="")


def test_without_inceptions_weights_the_names_are_those_of_vgg(tmp_path):
    names, sentence = spaces.measurable(str(tmp_path))
    assert names == spaces.VGG_NAMES and "not FID" in sentence
    with pytest.raises(FileNotFoundError, match="--download_weights"):
        spaces.load_spaces(["gfid"], lpips_dir="", weights_dir=str(tmp_path))


def test_the_card_tells_network_input_and_rules():
    space = spaces.inception_space_of({}, np.zeros((inception.DIM, 1008)), "ab")
    card = space.card()
    assert tuple(card) == space.names == spaces.INCEPTION_NAMES
    assert {own["weights"] for own in card.values()} == {"ab"}
    assert {own["input"] for own in card.values()} == {"(x - 128) / 128"}
    assert card["sfid"]["features"] == "mixed_6/conv, first 7 channels, 2023 dimensions"
    assert card["gfid"]["features"] == "pool3, 2048 dimensions"
    assert card["inception_score"]["classes"] == 1008
    assert card["precision"]["neighbours"] == 3


def test_inceptions_space_resizes_as_tensorflow_1_and_has_no_bias(monkeypatch):
    seen = []

    def activations(network, x):
        seen.append(x)
        return x.mean((1, 2)), x[:, 0]

    monkeypatch.setattr(spaces.inception, "inception_activations", activations)
    classifier = np.float32([[1, 2], [3, 4], [5, 6]])
    space = spaces.inception_space_of({}, classifier, "ab")
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    found = space.function(space.weights, images)
    rows = np.interp(np.arange(299) * 5 / 299, np.arange(5), images[1, 0, :, 2])
    np.testing.assert_allclose(seen[0][1, 0, :, 2], (rows - 128) / 128, atol=1e-5)
    np.testing.assert_allclose(found.logits, np.asarray(found.pool) @ classifier, rtol=1e-5)


def test_the_toy_is_a_space():
    assert toy_space.toy_space().names == spaces.INCEPTION_NAMES
    assert toy_space.toy_space(spatial=False).names == spaces.VGG_NAMES
