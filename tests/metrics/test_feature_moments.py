"""The Fréchet distance of an evaluation: against SciPy, and what is kept of the originals."""

import pathlib
import threading

import jax.numpy as jnp
import numpy as np
import pools
import pytest
import runs
import scipy.linalg

from mq_jax.data import inputs
from mq_jax.devices import sharding
from mq_jax.images.scale import from_uint8
from mq_jax.metrics import feature_moments
from mq_jax.metrics.feature_moments import FeatureMoments
from mq_jax.metrics.frechet import Moments
from mq_jax.metrics.measures import Features, Measures

COUNT, DIM = 13, 5
MATRIX = np.random.default_rng(0).normal(size=(3 * 32 * 32, DIM)).astype(np.float32)


def features(weights, images):
    return jnp.tanh(images.reshape(len(images), -1) @ weights / 50)


class Passes:
    """Evaluations of a folder, whose reconstructions are the negatives of the originals."""

    def __init__(self, directory, references):
        self.config = runs.configure(
            data__source="folder", data__dir=directory, data__eval_split="all", eval__batch_size=8
        )
        self.source = inputs.open_evaluation(self.config)
        self.seen, self.mesh = 0, sharding.make_mesh()

        measures = Measures((), Features("fid", DIM, features), MATRIX, {"fid": {"weights": "x"}})
        self.moments = FeatureMoments(
            measures, MATRIX, self.mesh, self.config, self.source, references
        )
        compute = self.moments._features

        def watched(weights, images):
            self.seen += 1
            return compute(weights, images)

        self.moments._features = watched

    def run(self, pixels):
        self.moments.begin()
        self.seen = 0
        for batch in inputs.evaluation_pass(self.config, self.source, self.mesh.size):
            images = sharding.shard_batch(self.mesh, batch["image"])
            self.moments.add(images, 255 - images, batch["mask"])
        return self.moments.distance(pixels)["eval/fid"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return runs.write_images(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def expected(directory):
    source = Passes(directory, pathlib.Path("nowhere")).source
    originals = np.stack([source[i].image for i in range(COUNT)])
    a, b = (
        np.asarray(features(MATRIX, from_uint8(images)), np.float64)
        for images in (originals, 255 - originals)
    )
    (s, t), d = (np.cov(rows, rowvar=False) for rows in (a, b)), a.mean(0) - b.mean(0)
    return d @ d + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real)


def test_the_distance_is_scipys_over_images_that_count(directory, expected, tmp_path):
    found = Passes(directory, tmp_path).run("p")
    assert found == pytest.approx(expected, rel=1e-4) and expected > 0.01


def test_the_originals_are_computed_once_then_kept_in_memory_and_on_disk(directory, tmp_path):
    passes = Passes(directory, tmp_path / "references")
    first = passes.run("p")
    assert passes.seen == 4  # Two batches, of originals and of reconstructions.
    assert passes.run("p") == first and passes.seen == 2
    later = Passes(directory, tmp_path / "references")
    assert later.run("p") == first and later.seen == 2


def test_other_pixels_under_the_same_name_are_computed_anew(directory, tmp_path):
    first = Passes(directory, tmp_path).run("p")
    other = Passes(directory, tmp_path)
    assert other.run("q") == first and other.seen == 4
    (kept,) = tmp_path.glob("*.npz")
    assert kept.stem.endswith("-q")


@pytest.fixture
def batches():
    """Five batches of 16, whose reconstructions and masks differ."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 16, 32, 32, 3), np.uint8)
    return list(zip(images, 255 - images, rng.integers(0, 2, (5, 16)), strict=True))


def add_all(passes, batches):
    """What a pass over these batches leaves, each put on the devices."""
    passes.moments.begin()
    for images, reconstructions, mask in batches:
        on_devices = sharding.shard_batch(passes.mesh, (images, reconstructions))
        passes.moments.add(*on_devices, mask.astype(np.float32))
    return passes.moments._originals, passes.moments._reconstructions


def test_features_are_fetched_while_the_devices_have_the_next_batch(
    directory, batches, monkeypatch
):
    """Those of each batch wait until the next ones are asked for; the sum has the same bits."""
    passes, asked = Passes(directory, None), [threading.Event() for _ in batches]
    compute, fetch, fetched = passes.moments._features, sharding.local_rows, []

    def watched(weights, images):
        found = compute(weights, images)
        asked[(passes.seen - 1) // 2].set()
        return found

    def patient(features):
        number = len(fetched) // 2
        assert asked[min(number + 1, len(batches) - 1)].wait(60)
        fetched.append(number)
        return fetch(features)

    passes.moments._features = watched
    monkeypatch.setattr(feature_moments.sharding, "local_rows", patient)
    sums = add_all(passes, batches)
    for number, found in enumerate(sums):
        expected = Moments.empty(DIM)
        for batch in batches:
            images = sharding.shard_batch(passes.mesh, batch[number])
            rows = fetch(compute(MATRIX, images))[batch[2] > 0]
            expected = expected.merge(Moments.of(rows))
        total = found.total()
        assert total.count == expected.count
        np.testing.assert_array_equal(total.total, expected.total)
        np.testing.assert_array_equal(total.outer, expected.outer)


def test_features_of_two_batches_wait_at_most(directory, batches):
    passes, events = Passes(directory, None), []
    passes.moments._reference = Moments.empty(DIM)
    passes.moments._pool = pools.Recorded(events)
    _, found = add_all(passes, batches)
    expected = [("gives", 0), ("gives", 1)]
    for number in range(2, 5):
        expected += [("gives", number), ("waits for", number - 2)]
    assert events == expected
    assert found.total().count == sum(int(mask.sum()) for *_, mask in batches)


def test_what_fails_beside_the_devices_is_told(directory, batches, monkeypatch):
    passes = Passes(directory, None)
    monkeypatch.setattr(feature_moments.sharding, "local_rows", lambda features: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        add_all(passes, batches)


def test_a_damaged_reference_is_computed_anew(directory, tmp_path):
    first = Passes(directory, tmp_path).run("p")
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:200])
    assert Passes(directory, tmp_path).run("p") == first
    assert Passes(directory, tmp_path).run("p") == first


@pytest.mark.parametrize("field", ["data__eval_split", "data__image_size", "data__resize"])
def test_another_protocol_has_another_reference(directory, tmp_path, field):
    passes = Passes(directory, tmp_path)
    value = {"data__eval_split": "train", "data__image_size": 16, "data__resize": True}[field]
    other = runs.configure(**{"data__source": "folder", "data__dir": directory, field: value})
    keys = [
        FeatureMoments(
            Measures((), Features("fid", DIM, features), MATRIX, {"fid": {}}),
            *(MATRIX, passes.mesh, config, passes.source, tmp_path),
        )._key
        for config in (passes.config, other)
    ]
    assert keys[0] != keys[1]
