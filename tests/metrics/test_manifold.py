"""Precision and recall against scikit-learn's neighbours, on whole numbers, where all is exact."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from mq_jax.metrics.manifold import precision_recall, squared_radii


def whole_numbers(count, seed, *, shift=0, dim=5):
    drawn = np.random.default_rng(seed).integers(-6, 7, (count, dim)) + shift
    return drawn.astype(np.float32)


def peers_radii(features, neighbours):
    fitted = NearestNeighbors(n_neighbors=neighbours, metric="sqeuclidean", algorithm="brute")
    # Without an argument it leaves each vector itself out.
    return fitted.fit(features).kneighbors()[0][:, -1]


def peers_share(features, of, neighbours):
    """The share of features inside some ball about the others."""
    radii = peers_radii(of, neighbours)
    distances = np.square(features[:, None] - of[None]).sum(-1)
    return np.mean((distances <= radii).any(1))


@pytest.mark.parametrize(("neighbours", "block"), [(3, 2000), (3, 16), (1, 7)])
def test_precision_and_recall_are_those_of_a_peer_whatever_the_blocks(neighbours, block):
    reference, samples = whole_numbers(61, 0), whole_numbers(43, 1, shift=2)
    found = precision_recall(reference, samples, neighbours=neighbours, block=block)
    expected = [
        peers_share(samples, reference, neighbours),
        peers_share(reference, samples, neighbours),
    ]
    assert found == pytest.approx(expected, abs=1e-7)
    assert 0 < min(found) and max(found) < 1 and found[0] != found[1]


def test_the_radii_leave_a_vector_itself_out_but_not_its_equals():
    features = whole_numbers(40, 2)
    features[5:9] = features[4]
    found = squared_radii(features, block=11)
    np.testing.assert_array_equal(found, peers_radii(features, 3))
    # Five equal ones: the third neighbour of each is another of them.
    np.testing.assert_array_equal(found[4:9], np.zeros(5))


def test_a_set_has_all_of_itself_and_nothing_of_one_far_away():
    features = whole_numbers(9, 3)
    assert precision_recall(features, features) == (1, 1)
    assert precision_recall(features, features + 1000) == (0, 0)


def test_collapsed_samples_are_precise_and_recall_nothing_else():
    reference = whole_numbers(30, 4)
    samples = np.repeat(reference[:1], 10, axis=0)
    assert precision_recall(reference, samples) == (1, pytest.approx(1 / 30))


@pytest.mark.parametrize("shapes", [((3, 2), (9, 2)), ((9, 2), (3, 2)), ((9, 2), (9, 3))])
def test_too_few_vectors_or_other_dimensions_are_refused(shapes):
    with pytest.raises(ValueError, match="expected more than 3 in either, of equal dimensions"):
        precision_recall(*(np.zeros(shape, np.float32) for shape in shapes))
