"""The Inception score: its definition by NumPy, closed forms, and sums that merge."""

import numpy as np
import pytest
from scipy.special import softmax

from mq_jax.metrics.inception_score import ScoreSums, inception_score


def logits(count, classes=7, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (count, classes)).astype(np.float32)


def by_definition(values, split):
    p, scores = softmax(values.astype(np.float64), axis=-1), []
    for start in range(0, len(p), split):
        part = p[start : start + split]
        divergences = (part * (np.log(part) - np.log(part.mean(0)))).sum(1)
        scores.append(np.exp(divergences.mean()))
    return np.mean(scores)


@pytest.mark.parametrize("split", [10, 13, 100])
def test_the_score_is_that_of_its_definition_over_consecutive_splits(split):
    values = logits(50)
    assert inception_score(ScoreSums.of(values, 0, split)) == pytest.approx(
        by_definition(values, split), rel=1e-12
    )


def test_the_sums_of_parts_are_those_of_the_whole_in_any_order():
    values = logits(50)
    parts = [ScoreSums.of(values[a : a + 15], a, 20) for a in (30, 0, 45, 15)]
    merged = ScoreSums.empty(0, 7)
    for part in parts:
        merged = merged.merge(part)
    for found, expected in zip(merged, ScoreSums.of(values, 0, 20), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_order_of_the_images_matters_where_there_are_splits():
    """Certain and evenly spread, the score is the number of classes; sorted by class it is 1."""
    values = np.tile(1e3 * np.eye(4, dtype=np.float32), (10, 1))
    assert inception_score(ScoreSums.of(values, 0, 20)) == pytest.approx(4)
    assert inception_score(ScoreSums.of(0 * values, 0, 20)) == pytest.approx(1)
    by_class = values[np.argsort(values.argmax(1), kind="stable")]
    assert inception_score(ScoreSums.of(by_class, 0, 10)) == pytest.approx(1)


def test_no_image_has_no_score():
    with pytest.raises(ValueError, match="expected at least one"):
        inception_score(ScoreSums.empty(0, 3))
