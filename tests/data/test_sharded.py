"""Parquet files and tar shards as sources: splits, classes, bad images, streams, digests."""

import itertools
import multiprocessing.pool
import pathlib
import pickle
import shutil

import numpy as np
import pytest
from shard_files import png, samples, write_parquet, write_tar

from mq_jax.containers.parquet import Columns
from mq_jax.data.ledger import LEFT_OUT, BadImages
from mq_jax.data.pipeline import eval_batches, train_stream
from mq_jax.data.sources import halves, open_source
from mq_jax.images.decode import Reading

KINDS = ("parquet", "wds")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))


def _write(kind, folder, name, reds):
    """A file of images of these reds, each of class red % 3."""
    reds = list(reds)
    if kind == "wds":
        return write_tar(folder / f"{name}.tar", samples(reds))
    images, labels = [png(red) for red in reds], [red % 3 for red in reds]
    return write_parquet(folder / f"{name}.parquet", images, labels, row_group_size=4)


def _reds(source):
    return [int(source[i].image[0, 0, 0]) for i in range(len(source))]


@pytest.fixture(params=KINDS)
def hub(request, tmp_path):
    """(kind, folder) of a train split in two files and a validation split."""
    _write(request.param, tmp_path / "data", "train-00000-of-00002-abc", range(10))
    _write(request.param, tmp_path / "data", "train-00001-of-00002-def", range(10, 16))
    _write(request.param, tmp_path / "data", "valid-00000-of-00001-012", range(20, 23))
    return request.param, str(tmp_path)


@pytest.mark.parametrize(
    "split, reds",
    [
        ("train", range(16)),
        ("validation", range(20, 23)),
        ("val", range(20, 23)),
        ("all", [*range(16), *range(20, 23)]),
        ("train[:25%]", range(4)),
        ("train[-3:-1]", range(13, 15)),
        ("validation[1:]", range(21, 23)),
    ],
)
def test_splits_are_told_by_the_names_of_the_files_and_sliced(hub, split, reds):
    kind, folder = hub
    source = open_source(kind, directory=folder, split=split)
    assert _reds(source) == list(reds)
    assert [source[i].label for i in range(len(source))] == [red % 3 for red in reds]
    assert source.class_names == ("0", "1", "2")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(hub):
    kind, folder = hub
    with pytest.raises(ValueError, match="'test' is not in .* 3 files tell of train, validation;"):
        open_source(kind, directory=folder, split="test")
    with pytest.raises(ValueError, match=r"reaches past its 3 records"):
        open_source(kind, directory=folder, split="validation[:9]")


@pytest.mark.parametrize(
    "name, split",
    [
        ("train-0000.tar", "train"),
        ("imagenet1k-TRAIN-0000.tar", "train"),
        ("default/testing/0000.tar", "test"),
        ("cars_val_7.tar", "validation"),
        ("data/restval-00000-of-00001.tar", "restval"),
        ("data/train-clean-00000-of-00001.tar", "train"),
    ],
)
def test_a_split_is_a_word_of_the_path(tmp_path, name, split):
    write_tar(tmp_path / name, samples([1]))
    assert len(open_source("wds", directory=str(tmp_path), split=split)) == 1
    with pytest.raises(ValueError, match=f"tell of {split}; expected one of them"):
        open_source("wds", directory=str(tmp_path), split="other")


def test_where_there_is_no_validation_the_test_split_validates(tmp_path):
    for name, reds in (("train-0", [1]), ("test-0", [2])):
        _write("wds", tmp_path, name, reds)
    assert _reds(open_source("wds", directory=str(tmp_path), split="validation")) == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_without_splits_a_tenth_is_held_out_and_stays_when_files_come(tmp_path, kind):
    def opened():
        return [
            _reds(open_source(kind, directory=str(tmp_path), split=split))
            for split in ("train", "validation")
        ]

    _write(kind, tmp_path, "part-0", range(60))
    train, validation = opened()
    assert sorted(train + validation) == list(range(60)) and 0 < len(validation) < 20
    _write(kind, tmp_path, "part-1", range(60, 100))
    more_train, more_validation = opened()
    assert set(train) < set(more_train) and set(validation) <= set(more_validation)
    with pytest.raises(ValueError, match="tell of none; expected"):
        open_source(kind, directory=str(tmp_path), split="test")


def test_shards_are_named_by_a_pattern_or_one_by_one(tmp_path):
    for number in range(12):
        _write("wds", tmp_path, f"x-{number:03d}", [number])
    pattern = str(tmp_path / "x-{003..010}.tar")
    assert _reds(open_source("wds", directory=pattern, split="all")) == list(range(3, 11))
    one = str(tmp_path / "x-007.tar")
    assert _reds(open_source("wds", directory=one, split="all")) == [7]
    with pytest.raises(FileNotFoundError, match=r"there is no .*x-012.tar; expected"):
        open_source("wds", directory=str(tmp_path / "x-{010..012}.tar"), split="all")
    with pytest.raises(ValueError, match="names 0 files"):
        open_source("wds", directory=str(tmp_path / "x-{5..3}.tar"), split="all")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_files_of_the_kind_is_refused(tmp_path, kind):
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(ValueError, match="no .* file in .* has to be unpacked first"):
        open_source(kind, directory=str(tmp_path), split="train")
    for place, told in (("", "config.data.dir is empty"), ("/nowhere", "there is no /nowhere")):
        with pytest.raises(FileNotFoundError, match=told):
            open_source(kind, directory=place, split="train")


def test_the_hubs_class_names_are_taken_and_names_are_classes(tmp_path):
    write_parquet(tmp_path / "hub/train-0.parquet", [png(1)], [2], names=("a", "b", "c"))
    write_parquet(tmp_path / "texts/0.parquet", [png(1), png(2), png(3)], ["dog", None, "cat"])
    write_tar(tmp_path / "tar/0.tar", [("1.png", png(1)), ("1.cls", b"dog"), ("2.png", png(2))])
    write_parquet(tmp_path / "none/0.parquet", [png(1)])
    write_parquet(tmp_path / "ids/0.parquet", [png(1)], [10**8])
    expected = {
        ("parquet", "hub"): (("a", "b", "c"), [2]),
        ("parquet", "texts"): (("cat", "dog"), [1, -1, 0]),
        ("wds", "tar"): (("dog",), [0, -1]),
        ("parquet", "none"): ((), [-1]),
        ("parquet", "ids"): ((), [10**8]),
    }
    for (kind, folder), (names, labels) in expected.items():
        source = open_source(kind, directory=str(tmp_path / folder), split="all")
        assert source.class_names == names
        assert [source[i].label for i in range(len(source))] == labels


def test_columns_make_another_source_and_another_digest(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [png(1)], [2])
    sources = [
        open_source("parquet", directory=str(tmp_path), split="train", columns=columns)
        for columns in (Columns(), Columns("image"), Columns("image", "label"))
    ]
    assert len({source.contents().digest for source in sources}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_bad_images_are_counted_and_named(tmp_path, kind, caplog):
    bad = png(5)[:-20]
    if kind == "wds":
        files = [("0.png", png(0)), ("1.png", bad), ("2.cls", b"1"), ("3.png", png(3))]
        path = write_tar(tmp_path / "train-0.tar", files)
        named = [f"{path}: 1", f"{path}: 2"]
    else:
        path = write_parquet(tmp_path / "train-0.parquet", [png(0), bad, None, png(3)], [0] * 4)
        named = [f"{path}: 1.png", f"{path}: #2"]
    source = open_source(kind, directory=str(tmp_path), split="train")
    ledger, found = BadImages(source, 0.5, LEFT_OUT), []
    for batch in eval_batches(source, lambda image: image[:1, :1], batch_size=3):
        ledger.record(batch["skipped"])
        found += batch["image"][batch["mask"] > 0][:, 0, 0, 0].tolist()
    assert ledger.indices == [1, 2] and found == [0, 3]
    assert [source.name(i) for i in ledger.indices] == named
    assert f"{named[1]}: the record has no image" in caplog.text


def test_images_over_a_limit_count_as_unreadable(hub):
    kind, folder = hub
    for limits, reason in (({"max_bytes": 20}, "max_bytes is 20"), ({"max_pixels": 15}, "pixels")):
        source = open_source(kind, directory=folder, split="train", reading=Reading(**limits))
        with pytest.raises(ValueError, match=reason):
            source[0]


def test_a_file_that_changes_while_it_is_read_makes_bad_images_and_no_wrong_end(hub):
    kind, folder = hub
    source = open_source(kind, directory=folder, split="validation")
    path = source.name(0).split(": ")[0]
    with open(path, "rb+") as file:
        file.truncate(10)
    with pytest.raises(ValueError, match="the file ends after"):
        source[2]
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="cannot read the file"):
        source[2]


def _seen(stream, count):
    return [next(stream)["image"][:, 0, 0, 0].tolist() for _ in range(count)]


def _first_pixel(image, rng):
    return image[:1, :1]


def test_a_stream_goes_on_bit_for_bit_and_processes_share_it(hub):
    kind, folder = hub
    source = open_source(kind, directory=folder, split="train")
    options = {"batch_size": 4, "seed": 3}
    whole = _seen(train_stream(source, _first_pixel, **options, threads=2), 9)
    assert sorted(itertools.chain(*whole[:4])) == list(range(16))
    later = _seen(train_stream(source, _first_pixel, **options, start=5), 4)
    assert later == whole[5:]
    parts = [
        _seen(train_stream(source, _first_pixel, **options, process_index=i, process_count=2), 9)
        for i in range(2)
    ]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_halves_have_no_image_in_common(hub):
    kind, folder = hub
    inner, outer = halves(open_source(kind, directory=folder, split="train"))
    assert sorted(_reds(inner) + _reds(outer)) == list(range(16))


def test_a_source_survives_pickling(hub):
    kind, folder = hub
    pickled = pickle.dumps(open_source(kind, directory=folder, split="train[:5]"))
    assert len(pickled) < 10_000 and _reds(pickle.loads(pickled)) == list(range(5))


def test_contents_are_the_same_wherever_the_data_lies(hub, tmp_path):
    kind, folder = hub
    copy = shutil.copytree(f"{folder}/data", tmp_path / ".copy" / "data").parent
    digests = {
        split: [
            open_source(kind, directory=str(place), split=split).contents().digest
            for place in (folder, copy)
        ]
        for split in ("train", "validation", "train[1:]", "all")
    }
    assert len({digest for pair in digests.values() for digest in pair}) == 4
    told = open_source(kind, directory=folder, split="train").contents()
    assert (told.origin, told.rule, told.images) == (kind, "files of 'train'", 16)


def test_the_index_is_made_once_and_follows_the_files(hub, caplog):
    kind, folder = hub
    caplog.set_level("INFO")

    def opened():
        caplog.clear()
        source = open_source(kind, directory=folder, split="train")
        return len(source), "Looking, once" in caplog.text

    assert [opened(), opened()] == [(16, True), (16, False)]
    _write(kind, pathlib.Path(folder) / "data", "train-x", [30, 31])
    assert [opened(), opened()] == [(18, True), (18, False)]


def test_numpy_indices_and_threads_read_the_same(hub):
    kind, folder = hub
    source = open_source(kind, directory=folder, split="train")
    with multiprocessing.pool.ThreadPool(4) as pool:
        reds = pool.map(lambda i: int(source[i].image[0, 0, 0]), np.arange(16).repeat(8))
    assert reds == np.arange(16).repeat(8).tolist()
