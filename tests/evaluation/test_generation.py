"""Generated images against a reference: the numbers of the whole way, the protocol, the cache."""

import json

import numpy as np
import pytest
import toy_space

from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.generation import evaluate_samples
from mq_jax.evaluation.image_sets import open_image_set
from mq_jax.metrics.frechet import Moments, frechet_distance
from mq_jax.metrics.generation import SetStatistics, generation_metrics
from mq_jax.metrics.spaces import Activations

SPACE = toy_space.toy_space()
DRAWN = {"samples": toy_space.draw(21, 0, low=30), "reference": toy_space.draw(19, 1)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name, images in DRAWN.items():
        np.savez(folder / f"{name}.npz", arr_0=images)
    return [open_image_set(folder / f"{name}.npz") for name in DRAWN]


def evaluate(sets, **asked):
    return evaluate_samples(*sets, (SPACE,), make_mesh(), **{"batch_size": 8, **asked})


def test_the_numbers_are_those_of_all_images_at_once(sets):
    """Blocks of eight, padded and split over eight devices, against float64 NumPy features."""
    whole = [
        SetStatistics.of(Activations(*toy_space.activations(images)), 0)
        for images in DRAWN.values()
    ]
    progress = []
    found = evaluate(sets, progress=progress.append)
    assert found.metrics == pytest.approx(generation_metrics(*whole, SPACE), rel=1e-4)
    assert found.images == 21 and sum(progress) == 40


def test_the_protocol_tells_both_sets_and_no_path(sets):
    found = evaluate(sets, names=["gfid", "recall"])
    protocol = found.protocol
    assert json.loads(json.dumps(protocol)) == protocol and str(sets[0].path) not in str(protocol)
    assert protocol["samples"] == {"images": 21, "image_size": toy_space.SIDE}
    assert protocol["data"]["images"] == 19 and protocol["data"]["source"] == "npz"
    assert list(protocol["measures"]) == list(found.metrics) == ["gfid", "recall"]
    assert protocol["measures"]["gfid"]["reference"] == "all images"
    assert "evenly spread" in protocol["measures"]["recall"]["reference"]


def test_a_reference_is_measured_once(sets, tmp_path, monkeypatch):
    first = evaluate(sets, directory=tmp_path)
    monkeypatch.setattr(type(sets[1]), "blocks", _only(sets[0]))
    again = evaluate(sets, directory=tmp_path)
    assert again == first
    with pytest.raises(AssertionError):
        evaluate(sets)


def test_a_reference_whose_file_brings_moments_is_that_of_those_moments(tmp_path, sets):
    named = {"mu": np.zeros(4), "sigma": np.eye(4), "mu_s": np.zeros(3), "sigma_s": np.eye(3)}
    np.savez(tmp_path / "r.npz", arr_0=DRAWN["reference"], **named)
    reference = open_image_set(tmp_path / "r.npz")
    for _ in range(2):
        found = evaluate((sets[0], reference), directory=tmp_path / "kept")
        pool, *_ = toy_space.activations(DRAWN["samples"])
        expected = frechet_distance(Moments.of_gaussian(np.zeros(4), np.eye(4)), Moments.of(pool))
        assert found.metrics["gfid"] == pytest.approx(expected, rel=1e-5)
    assert reference.sha256 in found.protocol["measures"]["sfid"]["reference"]
    plain = evaluate(sets).metrics
    assert {n: plain[n] for n in ("precision", "recall")} == {
        n: found.metrics[n] for n in ("precision", "recall")
    }


def test_sets_that_do_not_go_together_are_refused_before_anything_is_computed(tmp_path, sets):
    np.savez(tmp_path / "small.npz", arr_0=DRAWN["samples"][:, :5, :5])
    np.savez(tmp_path / "few.npz", arr_0=DRAWN["samples"][:3])
    small, few = (open_image_set(tmp_path / f"{n}.npz") for n in ("small", "few"))
    with pytest.raises(ValueError, match="have 5 pixels a side and the reference 8"):
        evaluate((small, sets[1]))
    with pytest.raises(ValueError, match="there are 3 samples and 19 reference images"):
        evaluate((few, sets[1]))
    with pytest.raises(ValueError, match="frechet_vgg needs images of 16 pixels; these have 8"):
        space = toy_space.toy_space(spatial=False)
        evaluate_samples(*sets, (space,), make_mesh())


def _only(images):
    """`blocks`, of one set alone."""
    whole = type(images).blocks

    def blocks(self, rows):
        assert self is images
        return whole(self, rows)

    return blocks
