"""Warnings of an adversarial training: each where it is due, none elsewhere."""

import pytest

from mq_jax.training.health import ailments

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
