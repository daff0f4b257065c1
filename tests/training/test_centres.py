"""Centres of features: those that there are, for each group and each level."""

import numpy as np
import pytest
import runs

from mq_jax.training.centres import centres, tables_of

KMEANS = {"codebook__base": "kmeans", "codebook__kind": "embedding", "codebook__size": 8}


def corners(count, spread, seed=0):
    """Points of 4 channels about eight corners, which lie far apart; and the corners."""
    rng = np.random.default_rng(seed)
    places = 10.0 * np.array([[a, b, c, 1] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    points = np.repeat(places, count, axis=0) + rng.uniform(-spread, spread, (8 * count, 4))
    return rng.permutation(points).astype(np.float32), places


def in_order(table):
    return table[np.lexsort(np.round(table).T[::-1])]


def test_a_centre_is_the_mean_of_the_points_that_are_nearest_to_it():
    points, _ = corners(30, 1.0)
    found, nearest = centres(points, 8, seed=0)
    distances = np.sum(np.square(points[:, None] - found), axis=-1)
    np.testing.assert_array_equal(nearest, distances.argmin(axis=1))
    for code in range(8):
        np.testing.assert_allclose(found[code], points[nearest == code].mean(axis=0), rtol=1e-5)
    again, _ = centres(points, 8, seed=0)
    assert found.dtype == np.float32 and found.tobytes() == again.tobytes()
    assert centres(points, 8, seed=1)[0].tobytes() != found.tobytes()


def test_as_many_distinct_points_as_centres_are_the_centres_however_often_each_is_there():
    _, places = corners(1, 0.0)
    points = np.repeat(places, [1, 90, 1, 1, 50, 1, 1, 1], axis=0).astype(np.float32)
    found, _ = centres(points, 8, seed=3)
    np.testing.assert_array_equal(in_order(found), places)


def test_fewer_distinct_features_than_codewords_are_refused_with_the_numbers():
    points = np.float32([[0, 1], [2, 3], [0, 1], [4, 5]])
    with pytest.raises(ValueError, match="4 features, of which 3 are distinct; .*size, 4: take"):
        centres(points, 4, seed=0)


def test_a_group_has_the_centres_of_its_own_channels():
    config = runs.configure(**KMEANS, quantizer__groups=2)
    points, _ = corners(40, 1.0)
    tables = tables_of(config, points)
    assert tables.shape == (2, 8, 2)
    for table, channels in zip(tables, np.split(points, 2, axis=1), strict=True):
        np.testing.assert_array_equal(table, centres(channels, 8, seed=0)[0])


def test_a_level_has_the_centres_of_what_those_before_it_leave():
    config = runs.configure(**KMEANS, quantizer__depth=2)
    points, _ = corners(40, 1.0)
    first, second = tables_of(config, points)
    own, nearest = centres(points, 8, seed=0)
    np.testing.assert_array_equal(first, own)
    np.testing.assert_array_equal(second, centres(points - own[nearest], 8, seed=0)[0])


@pytest.mark.parametrize(
    "changes, count",
    [
        ({"quantizer__depth": 3, "quantizer__shared": True}, 1),
        # Under a net, a row is no codeword that could be taken away.
        ({"quantizer__depth": 3, "codebook__kind": "linear", "codebook__embedding_dim": 4}, 3),
        ({"quantizer__depth": 2, "codebook__features": "vgg", "quantizer__groups": 2}, 4),
    ],
)
def test_bases_that_are_not_of_their_own_are_all_the_same(changes, count):
    tables = tables_of(runs.configure(**{**KMEANS, **changes}), corners(20, 1.0)[0])
    assert tables.shape == (count, 8, 4) and all((table == tables[0]).all() for table in tables)


def test_on_the_sphere_the_centres_are_of_unit_vectors():
    config = runs.configure(**KMEANS, quantizer__kind="l2")
    points, _ = corners(20, 1.0)
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    (table,) = tables_of(config, points)
    np.testing.assert_array_equal(table, centres(units, 8, seed=0)[0])


def test_centres_of_vgg_have_no_mean_and_rows_of_norm_about_one():
    (table,) = tables_of(runs.configure(**KMEANS, codebook__features="vgg"), corners(20, 1.0)[0])
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.mean(np.sum(np.square(table), axis=1)), 1, rtol=1e-5)
