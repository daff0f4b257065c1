"""Bases made of data: what is asked of features and files before a run, and what it starts from."""

import functools
import re

import jax
import numpy as np
import pytest
import runs

from mq_jax.data import inputs
from mq_jax.devices.sharding import make_mesh
from mq_jax.images.scale import from_uint8
from mq_jax.models import lpips
from mq_jax.runs.base import Base, digest, read_base, write_base
from mq_jax.training import features
from mq_jax.training.build import build
from mq_jax.training.first import drawn, first_state
from mq_jax.training.quantizing import VGG_STAGE, feature_width
from mq_jax.training.starting import read_table, require_base, starting_tables

KMEANS = {
    "codebook__base": "kmeans",
    "codebook__kind": "embedding",
    "codebook__base_images": 32,
    "train__hypergradient": "joint",
}
FILE = {**KMEANS, "codebook__base": "file"}


def table(seed=0, shape=(16, 4)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def saved(path, array=None):
    """The path of a file that holds a table."""
    array = table() if array is None else array
    save = functools.partial(np.savez, base=array) if path.suffix == ".npz" else None
    save(path) if save else np.save(path, array)
    return str(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_a_base_is_read_from_a_file_of_either_kind(tmp_path, name, dtype):
    place = saved(tmp_path / name, table().astype(dtype))
    found = read_table(runs.configure(**FILE, codebook__base_file=place))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, table())


# What lies in the place of a base, and what the one line says of it.
WRONG = {
    "another shape": (table(shape=(16, 5)), "holds [16, 5]; expected [16, 4], a row for each"),
    "whole numbers": (np.zeros((16, 4), np.int32), "cannot be read: it is int32[16, 4]; expected"),
    "one axis": (np.zeros(16), "cannot be read: it is float64[16]; expected 2 axes"),
    "infinity": (table() * np.float32(np.inf), "holds what is not finite"),
    "too large": (np.full((16, 4), 1e300), "holds what is not finite in float32"),
    "a pickle": (np.array([{}]), "which only a pickle could bring back"),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_holds_no_such_base_is_refused_in_one_line(tmp_path, name):
    array, said = WRONG[name]
    config = runs.configure(**FILE, codebook__base_file=saved(tmp_path / "a.npy", array))
    with pytest.raises(ValueError) as caught:
        require_base(config, tmp_path, started=False)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_file_is_needed_at_the_start_alone_and_stays_what_it_was_while_it_is_there(tmp_path):
    path = tmp_path / "a.npy"
    config = runs.configure(**FILE, codebook__base_file=str(path))
    with pytest.raises(FileNotFoundError, match=r"base_file .*a.npy does not exist"):
        require_base(config, tmp_path, started=False)
    require_base(config, tmp_path, started=True)
    write_base(tmp_path, Base("file a.npy", digest(table()[None])))
    saved(path)
    require_base(config, tmp_path, started=True)
    saved(path, table(1))
    with pytest.raises(ValueError, match="is not the file that the run in .* started from"):
        require_base(config, tmp_path, started=True)
    require_base(config, tmp_path, started=False)


def test_fewer_features_than_codewords_are_told_before_anything_is_computed(tmp_path):
    # 32 images of 16 x 16 codes, of which never fewer than one image's batch is read.
    config = runs.configure(**KMEANS | {"codebook__base_images": 5, "codebook__size": 8193})
    said = "base_images is 5, and 32 images have 8,192 features 'encoder'; expected at least"
    with pytest.raises(ValueError, match=re.escape(said) + ".* 8,193"):
        require_base(config, tmp_path, started=False)
    require_base(config, tmp_path, started=True)


@pytest.mark.parametrize("side", [16, 32, 40])
def test_vgg_has_a_feature_for_each_8_x_8_pixels(side):
    config = runs.configure(**KMEANS, codebook__features="vgg", data__image_size=side)
    images = jax.ShapeDtypeStruct((2, side, side, 3), np.float32)
    vgg = functools.partial(lpips.feature_map, net="vgg", stage=VGG_STAGE)
    found = jax.eval_shape(vgg, lpips.weight_shapes("vgg"), images)
    assert found.shape[1] * found.shape[2] == features.positions(config, 2)
    assert found.shape[3] == feature_width(config) == 512


def test_features_are_no_more_than_what_is_needed_and_fits():
    config = runs.configure(**KMEANS, codebook__features="vgg")
    for size, images, there, expected in (
        (16, 32, 256, (32, 16)),
        (1024, 2000, 16, (2016, 16)),
        (1024, 2000, 1024, (2016, 17)),
        # 1 GiB of features.
        (65_536, 2048, 1024, (2048, 256)),
    ):
        config.codebook.size, config.codebook.base_images = size, images
        assert features.feature_count(config, there) == expected


@functools.cache
def made():
    """A configuration, what it builds, its source, its features."""
    # As many codewords as make a k-means want all codes of an image.
    config = runs.configure(**KMEANS, codebook__size=256)
    built = build(config, 12)
    source = inputs.open_training(config).autoencoder
    with runs.quick_compilation():
        model = drawn(config, built)
        return config, built, source, features.sampled_features(config, built, source, model)


def test_features_are_encodings_of_the_first_images_as_the_first_step_sees_them():
    config, built, source, found = made()
    (images,) = inputs.first_images(config, source, count=32, batch_size=32)
    batches = inputs.stream(config, source, level=0, start=0)
    for part in np.split(images, 4):
        np.testing.assert_array_equal(part, next(batches)["image"])
    batches.close()
    with runs.quick_compilation():
        mesh = make_mesh()
        given = drawn(config, built), [table(shape=(256, 4))]
        params = first_state(config, built, mesh, *given).params
        z, _ = built.objective.autoencoder.apply(
            {"params": params.autoencoder},
            from_uint8(images),
            train=True,
            method="encode",
            mutable=["batch_stats"],
        )
    np.testing.assert_array_equal(params.codebook["embedding"], table(shape=(256, 4)))
    # Each position of an image once, in an order that is drawn.
    found, z = found.reshape(32, 256, 4), np.asarray(z).reshape(32, 256, 4)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(z, axis=1), atol=1e-6)
    assert np.abs(found - z).max() > 1e-3


def test_a_run_starts_from_what_its_folder_records(tmp_path, monkeypatch):
    config, built, source, found = made()
    monkeypatch.setattr("mq_jax.training.starting.sampled_features", lambda *given: found)
    tables = starting_tables(config, built, source, tmp_path, {})
    assert tables.shape == (1, 256, 4) and len(np.unique(tables[0], axis=0)) == 256
    expected = Base("k-means of 8,192 features 'encoder'", digest(tables))
    assert read_base(tmp_path) == expected
    assert starting_tables(runs.configure(), built, source, tmp_path, {}) == ()
    # What was taken needs no start.
    taken = ["params/codebook/embedding"]
    assert starting_tables(config, built, source, tmp_path / "other", {}, taken) == ()


def test_a_table_is_repeated_for_every_group_and_level(tmp_path):
    place = saved(tmp_path / "a.npz", table(shape=(16, 2)))
    config = runs.configure(
        **FILE, codebook__base_file=place, quantizer__groups=2, quantizer__depth=3
    )
    tables = starting_tables(config, None, None, tmp_path, {})
    assert tables.shape == (6, 16, 2) and (tables == table(shape=(16, 2))).all()


@pytest.mark.parametrize("text", ["{}", '{"origin": 3, "sha256": ""}', "["])
def test_a_damaged_record_is_told(tmp_path, text):
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(ValueError, match="base.json cannot be read"):
        read_base(tmp_path)
