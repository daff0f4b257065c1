"""Sets prepared from official archives are TFDS's own, without TensorFlow."""

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from official_archives import CIFAR10_FILES, cifar10_images, write_celeba, write_cifar10

from mq_jax.data.preparing import open_archive, prepare
from mq_jax.data.sources import open_source


def _tfds_order(split, keys):
    """As TFDS shuffles: by the hash of the split's name and the key."""
    return sorted(keys, key=lambda key: hashlib.md5(f"{split}{key}".encode()).hexdigest())


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar10_is_what_tfds_opens_in_the_order_of_tfds(tmp_path, kind):
    counted = []
    folder = prepare(open_archive(write_cifar10(tmp_path, kind)), tmp_path / "out", counted.append)
    assert folder == tmp_path / "out/cifar10/3.0.2" and sum(counted) == 18
    names = {"train": CIFAR10_FILES[:5], "test": CIFAR10_FILES[5:]}
    for split, files in names.items():
        labels, images = (
            np.concatenate(part) for part in zip(*map(cifar10_images().get, files), strict=True)
        )
        theirs = tfds.data_source("cifar10", data_dir=tmp_path / "out", split=split)
        ours = open_source("tfds:cifar10", directory=str(tmp_path / "out"), split=split)
        order = _tfds_order(split, range(len(labels)))
        assert len(ours) == len(theirs) == len(order)
        for index, key in enumerate(order):
            assert theirs[index]["id"].decode() == f"{split}_{key:05d}"
            assert theirs[index]["label"] == ours[index].label == labels[key]
            np.testing.assert_array_equal(theirs[index]["image"], images[key])
            np.testing.assert_array_equal(ours[index].image, images[key])
    assert ours.class_names[3] == "cat"


def test_both_archives_of_cifar10_make_the_same_bytes(tmp_path):
    made = []
    for kind in ("python", "binary"):
        folder = prepare(open_archive(write_cifar10(tmp_path, kind)), tmp_path / kind)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]


def test_celeba_is_what_tfds_opens_with_its_jpegs_as_they_were(tmp_path):
    names = [f"{number:06d}.jpg" for number in range(1, 8)]
    path, jpegs = write_celeba(tmp_path, names, [0, 0, 0, 0, 1, 2, 2])
    prepare(open_archive(path), tmp_path / "out")
    decoders = {"image": tfds.decode.SkipDecoding()}
    for split, own in (("train", names[:4]), ("validation", names[4:5]), ("test", names[5:])):
        builder = tfds.builder_from_directory(tmp_path / "out/celeb_a/2.1.0")
        theirs = builder.as_data_source(split=split, decoders=decoders)
        ours = open_source("tfds:celeb_a", directory=str(tmp_path / "out"), split=split)
        assert [record["image"] for record in theirs] == [
            jpegs[name] for name in _tfds_order(split, own)
        ]
        assert len(ours) == len(own) and ours[0].image.shape == (218, 178, 3)


def test_what_is_there_is_not_touched_and_a_failure_leaves_nothing(tmp_path):
    path = write_cifar10(tmp_path, "binary")
    out = tmp_path / "out"
    folder = prepare(open_archive(path), out)
    with pytest.raises(ValueError, match="cifar10/3.0.2 is there already"):
        prepare(open_archive(path), out)
    celeba, jpegs = write_celeba(tmp_path, ["1.jpg", "2.jpg", "3.jpg"], [0, 1, 2])
    data = bytearray(celeba.read_bytes())
    data[data.index(jpegs["3.jpg"]) + 500] ^= 255
    celeba.write_bytes(data)
    with pytest.raises(ValueError, match="3.jpg is damaged"):
        prepare(open_archive(celeba), out)
    assert list((out / "celeb_a").iterdir()) == [] and folder.is_dir()


def test_a_set_that_is_not_there_is_told_with_the_command_that_makes_it(tmp_path):
    for name, archive in (("cifar10", "cifar-10-python.tar.gz"), ("celeb_a", "img_align_celeba")):
        with pytest.raises(ValueError, match=f"--mode=prepare --from={archive}.*tfds build {name}"):
            open_source(f"tfds:{name}", directory=str(tmp_path), split="train")


def test_preparing_does_not_import_tensorflow(tmp_path):
    path = write_cifar10(tmp_path, "binary")
    program = (
        "import pathlib, sys; from mq_jax.data.preparing import open_archive, prepare; "
        f"prepare(open_archive(pathlib.Path({str(path)!r})), pathlib.Path({str(tmp_path)!r})); "
        "assert 'tensorflow' not in sys.modules"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
