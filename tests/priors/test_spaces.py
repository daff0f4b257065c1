"""Which tokens a prior is of, and how they come to it."""

import dataclasses

import numpy as np
import prior_runs
import pytest

from mq_jax.generation.space import TokenSpace
from mq_jax.priors.feed import evaluation_pass, rows
from mq_jax.priors.spaces import declared_space, space_of
from mq_jax.tokensets import open_tokens


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    given = prior_runs.write_sets(tmp_path_factory.mktemp("sets"))
    return [open_tokens(place) for place in given.values()]


def test_the_tokens_say_the_space_and_the_configuration_whether_classes_count(sets):
    space = space_of(prior_runs.configure(), *sets)
    assert space == TokenSpace(3, 4, 1, prior_runs.SIZE, 2)
    without = space_of(prior_runs.configure(prior__conditional=False), *sets)
    assert without == dataclasses.replace(space, classes=0)
    # What an experiment says of the tokens holds all the same.
    told = prior_runs.configure(prior__conditional=False, space__classes=2)
    assert space_of(told, *sets) == without


def test_what_the_configuration_says_of_the_tokens_must_hold(sets):
    with pytest.raises(ValueError, match="config.space.width is 5, and the tokens have 4"):
        space_of(prior_runs.configure(space__width=5), *sets)


def test_sets_of_different_codebooks_are_refused(sets, tmp_path):
    other = open_tokens(prior_runs.write_sets(tmp_path, size=300)["eval_tokens"])
    with pytest.raises(ValueError, match="differ in size: 16 and 300"):
        space_of(prior_runs.configure(), sets[0], other)


def test_a_space_without_tokens_is_the_declared_one_whole():
    fields = {"height": 3, "width": 4, "levels": 2, "size": 7, "classes": 5}
    config = prior_runs.configure(**{f"space__{name}": v for name, v in fields.items()})
    assert declared_space(config) == TokenSpace(**fields)
    with pytest.raises(ValueError, match="config.space.size is 0, whatever the tokens have"):
        declared_space(prior_runs.configure(space__height=3, space__width=4, space__levels=2))


def test_labels_that_lack_or_do_not_count_are_those_of_no_class():
    found = {"tokens": np.arange(24).reshape(2, 3, 2, 2), "label": np.array([1, -1])}
    tokens, labels = rows(found, TokenSpace(3, 2, 2, 24, 2))
    np.testing.assert_array_equal(tokens, found["tokens"].reshape(2, 6, 2))
    np.testing.assert_array_equal(labels, [1, 2])
    np.testing.assert_array_equal(rows(found, TokenSpace(3, 2, 2, 24))[1], [0, 0])


def test_an_evaluation_sees_every_image_once_whatever_the_devices(sets):
    config, space = prior_runs.configure(), TokenSpace(3, 4, 1, prior_runs.SIZE, 2)
    batches = list(evaluation_pass(config, sets[1], space, 3))
    index, mask = (np.concatenate([batch[part] for batch in batches]) for part in (2, 3))
    assert {len(batch[0]) for batch in batches} == {9}
    np.testing.assert_array_equal(index[mask > 0], np.arange(11))
