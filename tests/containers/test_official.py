"""Official archives: read as published, and nothing in them is run or believed."""

import os
import pickle
import tarfile

import numpy as np
import pytest
from official_archives import (
    CIFAR10_FILES,
    cifar10_images,
    pickled_batch,
    write_celeba,
    write_cifar10,
)

from mq_jax.containers.official import is_as_published
from mq_jax.data.preparing import open_archive
from mq_jax.images.decode import decode_image


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar10_is_read_in_the_order_of_its_batches(tmp_path, kind):
    archive = open_archive(write_cifar10(tmp_path, kind))
    assert (archive.dataset, archive.counts) == ("cifar10", {"train": 15, "test": 3})
    expected = cifar10_images()
    for split, names in (("train", CIFAR10_FILES[:5]), ("test", CIFAR10_FILES[5:])):
        found = list(archive.examples(split))
        images = np.concatenate([expected[name][1] for name in names])
        labels = np.concatenate([expected[name][0] for name in names])
        np.testing.assert_array_equal([decode_image(e.image) for e in found], images)
        assert [example.others["label"] for example in found] == labels.tolist()
        assert found[-1].others["id"] == f"{split}_{len(labels) - 1:05d}"
        assert [example.key for example in found] == list(range(len(labels)))


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_that_names_code_is_refused_and_the_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = {name: pickled_batch(*cifar10_images()[name]) for name in CIFAR10_FILES}
    contents["test_batch"] = pickle.dumps({"data": _Evil()}, 2)
    path = write_cifar10(tmp_path, "python", contents)
    with pytest.raises(ValueError, match="test_batch is no batch .*it names posix.mkdir"):
        open_archive(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda batches: batches.pop("data_batch_3"), "it has no data_batch_3"),
        (lambda batches: batches.update(test_batch=b"\x80\x02}."), "test_batch is no batch"),
        (
            lambda batches: batches.update(
                test_batch=pickled_batch(np.array([10]), np.zeros((1, 32, 32, 3), np.uint8))
            ),
            "labels from 10 to 10",
        ),
        (
            lambda batches: batches.update(
                test_batch=pickled_batch(np.array([1, 2]), np.zeros((1, 32, 32, 3), np.uint8))
            ),
            r"labels \(2,\) for 1 images",
        ),
    ],
)
def test_a_damaged_cifar10_is_refused(tmp_path, damage, told):
    batches = {name: pickled_batch(*cifar10_images()[name]) for name in CIFAR10_FILES}
    damage(batches)
    with pytest.raises(ValueError, match=f"{told}.*download it again"):
        open_archive(write_cifar10(tmp_path, "python", batches))


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_an_archive_that_was_cut_is_refused(tmp_path, share):
    path = write_cifar10(tmp_path, "binary")
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(ValueError, match="cannot be read .*download it again"):
        open_archive(path)


NAMES = [f"{number:06d}.jpg" for number in (3, 1, 2, 4)]


def _annotate(folder):
    (folder / "list_attr_celeba.txt").write_text(
        "4\nBald Male \n" + "".join(f"{name}  1 -1\n" for name in sorted(NAMES))
    )
    (folder / "list_landmarks_align_celeba.txt").write_text(
        "4\nnose_x nose_y\n" + "".join(f"{name} {name[5]}  7\n" for name in NAMES)
    )
    (folder / "identity_CelebA.txt").write_text("".join(f"{name} 9\n" for name in NAMES))


def test_celeba_is_read_by_its_list_and_its_jpegs_stay_as_they_are(tmp_path):
    path, jpegs = write_celeba(tmp_path, NAMES, [0, 0, 1, 2])
    archive = open_archive(path)
    assert archive.counts == {"train": 2, "validation": 1, "test": 1}
    train = list(archive.examples("train"))
    assert [example.key for example in train] == ["000001.jpg", "000003.jpg"]
    assert all(example.image == jpegs[example.key] and not example.others for example in train)
    _annotate(tmp_path)
    (other,) = open_archive(path).examples("validation")
    assert other.others == {
        "attributes": {"Bald": True, "Male": False},
        "landmarks": {"nose_x": 2, "nose_y": 7},
        "identity": {"Identity_No": 9},
    }


def test_celebas_list_may_lie_elsewhere_and_must_be_one(tmp_path):
    path, _ = write_celeba(tmp_path, NAMES, [0, 0, 1, 2])
    listed = tmp_path / "list_eval_partition.txt"
    moved = listed.rename(tmp_path / "splits.txt")
    with pytest.raises(FileNotFoundError, match="list of CelebA's splits.*--partition"):
        open_archive(path)
    assert open_archive(path, moved).counts["train"] == 2
    for text, told in (
        ("000001.jpg 3\n", "line 1 of .* expected NAME and 0, 1 or 2"),
        ("000001.jpg 0\n", "names no image of validation, test"),
        ("1.jpg 0\n2.jpg 1\n3.jpg 2\n", "it lacks 3 images of .*, 1.jpg first"),
    ):
        moved.write_text(text)
        with pytest.raises(ValueError, match=told):
            open_archive(path, moved)


def test_a_damaged_image_of_celeba_is_named(tmp_path):
    path, jpegs = write_celeba(tmp_path, NAMES, [0, 0, 1, 2])
    data = bytearray(path.read_bytes())
    data[data.index(jpegs["000003.jpg"]) + 500] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match="000003.jpg is damaged"):
        list(open_archive(path).examples("train"))


def test_what_is_no_official_archive_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an official archive"):
        open_archive(tmp_path / "cifar-10-python.tar.gz")
    (tmp_path / "a.rar").touch()
    with pytest.raises(ValueError, match="none of cifar-10-python.tar.gz, cifar-10-binary"):
        open_archive(tmp_path / "a.rar")
    tarfile.open(tmp_path / "a.tar.gz", "w:gz").close()
    with pytest.raises(ValueError, match="it has no data_batch_1, "):
        open_archive(tmp_path / "a.tar.gz")


def test_a_file_of_another_hash_is_not_as_published(tmp_path):
    assert not is_as_published(write_cifar10(tmp_path, "python"))
