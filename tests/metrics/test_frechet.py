"""The Fréchet distance: SciPy's matrix root, closed forms, and moments that merge exactly."""

import logging

import numpy as np
import pytest
import scipy.linalg

from mq_jax.metrics.frechet import Moments, frechet_distance, load_reference, save_reference

RNG = np.random.default_rng(0)


def features(count, dim, shift=0.0):
    """Correlated, non-negative and far from zero, as those of a network."""
    mixing = np.random.default_rng(1).normal(size=(dim, dim))
    return (np.abs(RNG.normal(size=(count, dim)) @ mixing) + shift).astype(np.float32)


def scipys(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    (s, t), d = (np.cov(x, rowvar=False) for x in (a, b)), a.mean(0) - b.mean(0)
    return d @ d + np.trace(s) + np.trace(t) - 2 * np.trace(scipy.linalg.sqrtm(s @ t)).real


@pytest.mark.parametrize(("count", "dim"), [(500, 3), (300, 24), (2000, 64)])
def test_the_distance_is_that_of_scipys_matrix_root(count, dim):
    a, b = features(count, dim), features(count + 7, dim, shift=0.1)
    found = frechet_distance(Moments.of(a), Moments.of(b))
    assert found == pytest.approx(scipys(a, b), rel=1e-9)


def test_the_moments_are_numpys():
    rows = features(50, 6)
    moments = Moments.of(rows)
    np.testing.assert_allclose(moments.mean, rows.astype(np.float64).mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, dtype=np.float64), rtol=1e-10)


def test_independent_coordinates_have_a_closed_form():
    """sum (m - n)^2 + (s - t)^2, with exact sample moments: every sign combination."""
    signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), -1).reshape(-1, 3)
    means, scales = RNG.normal(size=(2, 3)), RNG.uniform(1, 2, size=(2, 3))
    sets = [Moments.of(m + s * signs) for m, s in zip(means, scales, strict=True)]
    unbiased = len(signs) / (len(signs) - 1)
    expected = np.sum((means[0] - means[1]) ** 2 + unbiased * (scales[0] - scales[1]) ** 2)
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-12)


def test_fewer_vectors_than_dimensions_are_no_obstacle():
    """Both live in one plane, where the distance is that of two dimensions."""
    plane = np.linalg.qr(RNG.normal(size=(20, 2)))[0]
    a, b = (features(9, 2, shift) for shift in (0.0, 0.5))
    found = frechet_distance(Moments.of(a @ plane.T), Moments.of(b @ plane.T))
    assert found == pytest.approx(frechet_distance(Moments.of(a), Moments.of(b)), rel=1e-6)


def test_equal_sets_are_at_distance_zero():
    moments = Moments.of(features(100, 16))
    scale = np.trace(moments.covariance)
    assert 0 <= frechet_distance(moments, moments) < 1e-10 * scale


@pytest.mark.parametrize("cuts", [(1,), (7, 31), (10, 20, 30, 40), (0, 50)])
def test_any_split_in_any_order_merges_to_the_same_moments(cuts):
    rows = features(50, 8)
    whole, merged = Moments.of(rows), Moments.empty(8)
    for part in reversed(np.split(rows, cuts)):
        merged = merged.merge(Moments.of(part))
    assert merged.count == 50
    np.testing.assert_allclose(merged.total, whole.total, rtol=1e-12)
    np.testing.assert_allclose(merged.outer, whole.outer, rtol=1e-12)


@pytest.mark.parametrize(("a", "b"), [((1, 4), (9, 4)), ((9, 4), (0, 4)), ((9, 4), (9, 5))])
def test_sets_without_a_distance_are_refused(a, b):
    moments = [Moments.of(np.ones(shape, np.float32)) for shape in (a, b)]
    with pytest.raises(ValueError, match="expected at least 2 vectors in either, of equal dim"):
        frechet_distance(*moments)


def test_a_reference_is_read_bit_for_bit(tmp_path):
    moments = Moments.of(features(20, 4))
    save_reference(tmp_path / "r.npz", moments, "key")
    found = load_reference(tmp_path / "r.npz", "key", 4)
    assert found.count == 20
    np.testing.assert_array_equal(found.total, moments.total)
    np.testing.assert_array_equal(found.outer, moments.outer)
    assert [path.name for path in tmp_path.iterdir()] == ["r.npz"]


def test_a_reference_of_another_key_or_none_is_not_taken(tmp_path, caplog):
    save_reference(tmp_path / "r.npz", Moments.empty(4), "key")
    with caplog.at_level(logging.WARNING):
        assert load_reference(tmp_path / "r.npz", "other", 4) is None
    assert "r.npz are of 'key', not other" in caplog.text
    assert load_reference(tmp_path / "absent.npz", "key", 4) is None


@pytest.mark.parametrize("size", [0, 10, 300])
def test_a_damaged_reference_is_told_and_left(tmp_path, caplog, size):
    path = tmp_path / "r.npz"
    save_reference(path, Moments.of(features(20, 4)), "key")
    path.write_bytes(path.read_bytes()[:size])
    with caplog.at_level(logging.WARNING):
        assert load_reference(path, "key", 4) is None
    assert "damaged" in caplog.text and path.exists()


def test_a_flipped_bit_neither_raises_nor_changes_a_reference(tmp_path, caplog):
    path = tmp_path / "r.npz"
    save_reference(path, Moments.of(features(20, 2)), "key")
    whole, expected = path.read_bytes(), load_reference(path, "key", 2)
    bits = range(0, 8 * len(whole), 7)
    taken = 0
    with caplog.at_level(logging.CRITICAL):
        for bit in bits:
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            found = load_reference(path, "key", 2)
            if found is not None:
                taken += 1
                for own, other in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(own, other)
    # A zip archive has fields that no reader looks at, such as times.
    assert 0 < taken < len(bits) / 2


def test_a_reference_of_unequal_dimensions_is_damaged(tmp_path, caplog):
    path = tmp_path / "r.npz"
    np.savez(path, key="key", count=3, total=np.zeros(4), outer=np.zeros((2, 2)))
    with caplog.at_level(logging.WARNING):
        assert load_reference(path, "key", 4) is None
    assert "damaged (its sums are (4,) and (2, 2); expected 4 dimensions)" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"count": -3},
        {"count": np.zeros(2)},
        {"outer": np.full((4, 4), np.nan)},
        {"total": np.zeros(4, "U1")},
        {"total": np.zeros(5), "outer": np.zeros((5, 5))},
    ],
)
def test_a_reference_of_other_values_is_damaged(tmp_path, caplog, change):
    arrays = {"key": "key", **Moments.of(features(20, 4))._asdict(), **change}
    np.savez(tmp_path / "r.npz", **arrays)
    with caplog.at_level(logging.WARNING):
        assert load_reference(tmp_path / "r.npz", "key", 4) is None
    assert "are damaged (" in caplog.text
