"""Prepared TFDS sets: read without TensorFlow, refused with advice."""

import io
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import dataset_info

from mq_jax.data.sources import open_source


@pytest.fixture(scope="module")
def cifar_dir():
    """The directory that holds a prepared CIFAR-10; skips where there is none."""
    default = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tfds"
    directory = pathlib.Path(os.environ.get("MQ_JAX_TEST_DATA") or default)
    if not (directory / "cifar10").is_dir():
        pytest.skip("no prepared CIFAR-10; set MQ_JAX_TEST_DATA to a TFDS data_dir that has it")
    return str(directory)


def _png(red):
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _write_set(directory, name, features, splits):
    """Writes a set as `tfds build --file_format=array_record` would leave it."""
    data_dir = f"{directory}/{name}/1.0.0"
    identity = dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=data_dir, module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    os.makedirs(data_dir)
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=100, file_format="array_record"
    )
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Sets `shapes` (labelled), `faces` (no labels, one damaged image) and `words` (no images)."""
    directory = str(tmp_path_factory.mktemp("tfds"))
    image = tfds.features.Image(shape=(None, None, 3))
    label = tfds.features.ClassLabel(names=["disc", "square"])
    examples = [{"image": _png(i), "label": i % 2} for i in range(10)]
    shapes = {"train": examples, "test": examples[:4]}
    _write_set(directory, "shapes", {"image": image, "label": label}, shapes)
    faces = {"train": [{"image": _png(9)}, {"image": b"damaged"}]}
    _write_set(directory, "faces", {"image": image}, faces)
    _write_set(directory, "words", {"text": tfds.features.Text()}, {"train": [{"text": "a"}]})
    return directory


def test_a_prepared_set_is_read(data_dir):
    source = open_source("tfds:shapes", directory=data_dir, split="train")
    assert len(source) == 10 and source.class_names == ("disc", "square")
    np.testing.assert_array_equal(source[7].image[..., 0], np.full((4, 5), 7))
    assert source[7].label == 1 and source.name(7) == "shapes train #7"


@pytest.mark.parametrize(
    "split, reds",
    [
        ("test", [0, 1, 2, 3]),
        ("train[:2]", [0, 1]),
        ("train[80%:]", [8, 9]),
        ("train[4:6]+test[:1]", [4, 5, 0]),
    ],
)
def test_a_split_is_sliced_as_tfds_does(data_dir, split, reds):
    source = open_source("tfds:shapes", directory=data_dir, split=split)
    assert [source[i].image[0, 0, 0] for i in range(len(source))] == reds


def test_a_set_without_labels_has_label_minus_one(data_dir):
    source = open_source("tfds:faces", directory=data_dir, split="train")
    assert source.class_names == () and source[0].label == -1


def test_a_damaged_image_raises_value_error(data_dir):
    source = open_source("tfds:faces", directory=data_dir, split="train")
    with pytest.raises(ValueError, match="cannot decode an image of 7 bytes"):
        source[1]


def test_a_prepared_set_pickles_small(data_dir):
    source = open_source("tfds:shapes", directory=data_dir, split="train")
    pickled = pickle.dumps(source)
    assert len(pickled) < 50_000
    np.testing.assert_array_equal(pickle.loads(pickled)[3].image, source[3].image)


@pytest.mark.parametrize(
    "name, split, message",
    [
        ("shapes", "tests", r"Unknown split 'tests'.*Available: .*test \(4\)"),
        ("shapes", "train[:99]", r"incompatible with 10 examples.*Available: "),
        ("shapes", "train[3:3]", r"split 'train\[3:3\]' of 'shapes'"),
        ("words", "train", "no feature 'image'; it has text"),
        ("shape", "train", "TFDS knows no 'shape'; near: shapes"),
        ("cifar100", "train", "not prepared.*holds faces/1.0.0, shapes/1.0.0.*tfds build cifar100"),
        ("shapes:2.0.0", "train", "'shapes:2.0.0' is not prepared.*Ask for a version"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_advice(data_dir, name, split, message):
    with pytest.raises(ValueError, match=message):
        open_source(f"tfds:{name}", directory=data_dir, split=split)


def test_a_tfrecord_set_is_refused_with_advice(tmp_path):
    image = {"image": tfds.features.Image(shape=(None, None, 3))}
    _write_set(str(tmp_path), "old", image, {"train": [{"image": _png(0)}]})
    path = tmp_path / "old" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="prepared as tfrecord; expected array_record"):
        open_source("tfds:old", directory=str(tmp_path), split="train")


def _copied(data_dir, tmp_path):
    """The folder of a copy of `shapes`."""
    shutil.copytree(f"{data_dir}/shapes", tmp_path / "data" / "shapes")
    return tmp_path / "data" / "shapes" / "1.0.0"


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_set_that_names_code_is_refused_and_the_code_is_not_run(
    data_dir, tmp_path, monkeypatch, name
):
    folder = _copied(data_dir, tmp_path)
    declared = json.loads((folder / "features.json").read_text())
    declared["featuresDict"]["features"]["image"]["pythonClassName"] = "pwned.Image"
    if name == "dataset_info.json":
        declared = json.loads((folder / name).read_text()) | {"features": declared}
    (folder / name).write_text(json.dumps(declared))
    (tmp_path / "pwned.py").write_text("import pathlib; pathlib.Path(__file__).unlink()")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"{name} names 'pwned.Image', which reading the set"):
        open_source("tfds:shapes", directory=str(tmp_path / "data"), split="train")
    assert (tmp_path / "pwned.py").exists()


def test_the_module_that_a_set_says_it_is_from_is_not_imported(data_dir, tmp_path, monkeypatch):
    folder = _copied(data_dir, tmp_path)
    info = json.loads((folder / "dataset_info.json").read_text()) | {"moduleName": "pwned"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "pwned.py").write_text("import pathlib; pathlib.Path(__file__).unlink()")
    monkeypatch.syspath_prepend(tmp_path)
    source = open_source("tfds:shapes", directory=str(tmp_path / "data"), split="train")
    assert pickle.loads(pickle.dumps(source))[3].label == 1
    assert (tmp_path / "pwned.py").exists()


def test_a_shard_that_is_no_file_is_refused(data_dir, tmp_path):
    (shard,) = _copied(data_dir, tmp_path).glob("*train*")
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(ValueError, match="a FIFO; expected a regular file"):
        open_source("tfds:shapes", directory=str(tmp_path / "data"), split="train")


def test_the_contents_are_the_set_its_shards_and_which_of_their_records(data_dir):
    def contents(split):
        return open_source("tfds:shapes", directory=data_dir, split=split).contents()

    part = contents("train[4:6]+test[:1]")
    assert (part.origin, part.images) == ("shapes/1.0.0", 3)
    shapes = [r"shapes-train\S+ of \d+ bytes, records 4 to 6", r"shapes-test.*, records 0 to 1"]
    for name, shape in zip(part.names, shapes, strict=True):
        assert re.fullmatch(shape, name)
    digests = [contents(split).digest for split in ("train", "train", "train[1:]", "test")]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_reading_does_not_import_tensorflow(data_dir):
    program = (
        "import sys; from mq_jax.data.sources import open_source; "
        f"open_source('tfds:shapes', directory={data_dir!r}, split='train')[0]; "
        "assert 'tensorflow' not in sys.modules"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)


def test_real_cifar10_is_read(cifar_dir):
    source = open_source("tfds:cifar10", directory=cifar_dir, split="test[:20]")
    assert len(source) == 20 and source.class_names[3] == "cat"
    assert source[0].image.shape == (32, 32, 3) and 0 <= source[0].label < 10
