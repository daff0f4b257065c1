"""Warnings of a training: each where it is due, once, and none elsewhere."""

import pytest

from mq_jax.evaluation.code_use import Codebook
from mq_jax.training.health import Watch, ailments

HEALTHY = {
    "disc/trains": 1.0,
    "disc/weight": 0.5,
    "disc/accuracy_real": 0.8,
    "disc/accuracy_fake": 0.7,
    "inner/adaptive_clipped": 0.0,
}

CASES = [
    ({}, []),
    ({"disc/accuracy_real": 0.999, "disc/accuracy_fake": 0.99}, ["dominant"]),
    ({"disc/accuracy_real": 0.999}, []),
    ({"disc/accuracy_real": 0.3, "disc/accuracy_fake": 0.7}, ["guessing"]),
    ({"disc/accuracy_real": 0.3, "disc/accuracy_fake": 0.7, "disc/weight": 0.0}, []),
    ({"inner/adaptive_clipped": 0.2}, ["capped"]),
    ({"inner/adaptive_clipped": 0.2, "disc/accuracy_real": 0.1}, ["capped", "guessing"]),
    ({"disc/trains": 0.5, "disc/accuracy_real": 1.0, "disc/accuracy_fake": 1.0}, []),
]


@pytest.mark.parametrize("changes, expected", CASES)
def test_an_ailment_is_named_where_the_numbers_show_it(changes, expected):
    found = ailments(HEALTHY | changes)
    assert sorted(found) == expected
    for sentence in found.values():
        assert "config.discriminator." in sentence or "config.disc." in sentence


def test_a_run_without_a_discriminator_has_no_ailment():
    assert ailments({"inner/loss": 0.1}) == {}


# The use of codes.

CODEBOOK = Codebook(size=1024, kind="mlp", layer_norm=True, learning_rate_ratio=1.0)
FEW, ENOUGH = {"inner/usage": 0.07, "inner/perplexity": 51.0}, {"inner/usage": 0.9}
ENOUGH["inner/perplexity"] = 700.0


def test_few_codes_are_an_ailment_with_and_without_a_discriminator():
    assert list(ailments(FEW, CODEBOOK, 100_000)) == ["few"]
    assert "layer_norm=False" in ailments(FEW, CODEBOOK, 100_000)["few"]
    guessing = HEALTHY | {"disc/accuracy_real": 0.3} | FEW
    assert list(ailments(guessing, CODEBOOK, 100_000)) == ["few", "guessing"]
    assert ailments(HEALTHY | ENOUGH, CODEBOOK, 100_000) == {}


def test_codes_are_not_judged_without_their_codebook_or_by_too_few_of_them():
    assert ailments(FEW) == ailments(FEW, CODEBOOK, 1000) == {}


def told(windows, warm=0, every=20):
    """The steps of the windows after which something was said, one window after the other."""
    watch = Watch(CODEBOOK, warm, every)
    steps = [min(every * (number + 1), 90) for number in range(len(windows))]
    return [
        step
        for step, row in zip(steps, windows, strict=True)
        if watch.begun(step, HEALTHY | row, 100_000)
    ]


@pytest.mark.parametrize(
    "warm, first", [(0, 20), (20, 40), (21, 60), (40, 60), (79, 90), (80, 90), (81, None)]
)
def test_a_window_is_judged_once_it_begins_after_the_warm_up(warm, first):
    assert told([FEW] * 5, warm=warm) == [first] * (first is not None)


def test_an_ailment_is_said_when_it_begins_and_not_while_it_lasts():
    assert told([ENOUGH, FEW, FEW, ENOUGH, FEW]) == [40, 90]
    capped = {"inner/adaptive_clipped": 0.5}
    assert told([ENOUGH | capped, ENOUGH | capped, FEW | capped, FEW]) == [20, 60]
