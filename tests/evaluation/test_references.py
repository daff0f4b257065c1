"""Statistics of references: kept under their protocol, read with distrust; published moments."""

import numpy as np
import pytest
import toy_space

from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.generation import Measurer
from mq_jax.evaluation.image_sets import open_image_set
from mq_jax.evaluation.references import (
    brings_moments,
    load_reference_set,
    published_moments,
    reference_key,
    save_reference_set,
)
from mq_jax.metrics.frechet import Moments

SPACE, VGG = toy_space.toy_space(), toy_space.toy_space(spatial=False)


def archive(path, count=9, **others):
    np.savez(path, arr_0=toy_space.draw(count, count), **others)
    return open_image_set(path)


def test_what_is_kept_is_read_again_and_nothing_else(tmp_path):
    images = archive(tmp_path / "r.npz")
    measured = Measurer(SPACE, make_mesh(), 8).statistics(images, of_reference=True)
    key = reference_key(images, SPACE)
    folder = tmp_path / "kept"
    assert load_reference_set(folder, key, SPACE) is None
    save_reference_set(folder, key, measured)
    found = load_reference_set(folder, key, SPACE)
    assert found[1:] == measured[1:] and found.images == 9
    for name in ("moments", "spatial"):
        one, other = (getattr(each.statistics, name) for each in (found, measured))
        assert one.count == other.count == 9
        np.testing.assert_array_equal(one.outer, other.outer)
    np.testing.assert_array_equal(found.statistics.features, measured.statistics.features)
    # Under another key, and in a space of other names, it is another set's.
    (path,) = folder.iterdir()
    path.rename(folder / "generation-x.npz")
    assert load_reference_set(folder, "x", SPACE) is None
    assert load_reference_set(folder, key, SPACE) is None


def test_the_key_tells_data_network_and_count(tmp_path):
    sets = [archive(tmp_path / f"{n}.npz", n) for n in (9, 10)]
    others = SPACE, VGG, toy_space.toy_space(1)
    assert len({reference_key(images, space) for images in sets for space in others}) == 6
    assert reference_key(sets[0], SPACE) == reference_key(sets[0], toy_space.toy_space())


def test_moments_that_a_reference_brings_are_those_of_their_gaussian(tmp_path):
    rng = np.random.default_rng(0)
    mean, spatial_mean = rng.normal(size=4), rng.normal(size=3)
    root, spatial_root = rng.normal(size=(4, 4)), rng.normal(size=(3, 3))
    named = {"mu": mean, "sigma": root @ root.T}
    named |= {"mu_s": spatial_mean, "sigma_s": spatial_root @ spatial_root.T}
    images = archive(tmp_path / "r.npz", **named)
    assert brings_moments(images, SPACE) and not brings_moments(images, VGG)
    pooled, spatial = published_moments(images, SPACE)
    for moments, suffix in ((pooled, ""), (spatial, "_s")):
        np.testing.assert_allclose(moments.mean, named[f"mu{suffix}"], rtol=1e-12)
        np.testing.assert_allclose(moments.covariance, named[f"sigma{suffix}"], atol=1e-12)
    for name, wrong in {"mu": np.zeros(5), "sigma": np.full((4, 4), np.nan)}.items():
        damaged = archive(tmp_path / "d.npz", **(named | {name: wrong}))
        with pytest.raises(ValueError, match=r"d.npz has no sound mu, sigma, mu_s, sigma_s"):
            published_moments(damaged, SPACE)
    del named["mu_s"]
    assert not brings_moments(archive(tmp_path / "f.npz", **named), SPACE)
    assert isinstance(pooled, Moments)
