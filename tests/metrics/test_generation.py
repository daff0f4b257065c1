"""The metrics of two sets against NumPy, SciPy and scikit-learn; statistics that merge."""

import jax
import numpy as np
import pytest
import scipy.linalg
import toy_space
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors

from mq_jax.metrics.generation import SetStatistics, generation_metrics, merged, neighbourhood

SPACE = toy_space.toy_space()


def statistics(images, start=0, **asked):
    found = jax.device_get(SPACE.function(SPACE.weights, images))
    return SetStatistics.of(found, start, **asked)


def frechet(a, b):
    (s, t), d = (np.cov(x, rowvar=False) for x in (a, b)), a.mean(0) - b.mean(0)
    return d @ d + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real)


def covered(features, of):
    radii = NearestNeighbors(n_neighbors=3).fit(of).kneighbors()[0][:, -1]
    distances = np.linalg.norm(features[:, None] - of[None], axis=-1)
    return np.mean((distances <= radii).any(1))


def test_the_metrics_are_those_of_peers():
    images = toy_space.draw(60, 0), toy_space.draw(50, 1, low=40)
    found = generation_metrics(statistics(images[1]), statistics(images[0], scored=False), SPACE)
    (pool, places, _), (own_pool, own_places, logits) = map(toy_space.activations, images)
    p = softmax(logits, axis=-1)
    score = np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), axis=1)))
    assert found == pytest.approx(
        {
            "gfid": frechet(pool, own_pool),
            "sfid": frechet(places, own_places),
            "inception_score": score,
            "precision": covered(own_pool, pool),
            "recall": covered(pool, own_pool),
        },
        rel=1e-4,
    )
    assert tuple(found) == SPACE.names and found["gfid"] > 0.1


def test_parts_make_the_statistics_of_the_whole():
    images = toy_space.draw(20, 2)
    parts = [statistics(images[a : a + 8], a) for a in (0, 8, 16)]
    whole, found = statistics(images), merged([SetStatistics.empty(SPACE), *parts])
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    again = parts[0].merge(parts[1]).merge(parts[2])
    assert generation_metrics(again, whole, SPACE) == pytest.approx(
        generation_metrics(whole, whole, SPACE), abs=1e-5
    )


def test_only_what_is_asked_for_is_computed():
    whole = statistics(toy_space.draw(5, 3))
    few = whole._replace(features=np.zeros((0, 4)))
    assert list(generation_metrics(few, few, SPACE, ["inception_score", "gfid"])) == [
        *("gfid", "inception_score")
    ]
    with pytest.raises(ValueError, match="expected more than 3"):
        generation_metrics(few, few, SPACE)


def test_a_reference_is_seen_evenly_by_its_neighbours():
    assert neighbourhood(4, 9).all()
    np.testing.assert_array_equal(np.flatnonzero(neighbourhood(10, 4)), [0, 3, 6, 9])
    kept = neighbourhood(5, 2)
    found = statistics(toy_space.draw(5, 4), kept=kept)
    assert found.features.shape == (2, 4) and found.moments.count == 5
