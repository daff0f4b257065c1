"""The training stream as a pure function of its step; one pass for evaluation."""

import io
import itertools
import os
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from mq_jax.data import pipeline
from mq_jax.data.pipeline import MAX_SKIPS, eval_batches, shuffling_cost, train_stream
from mq_jax.data.sources import Record, open_source


class _Numbers:
    """Record i is a 4×4 image whose red is i; the `bad` ones cannot be read."""

    class_names = ()

    def __init__(self, length, bad=()):
        self._length, self._bad, self.reads = length, frozenset(bad), 0

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        self.reads += 1
        if index in self._bad:
            raise ValueError(f"{index} is damaged.")
        image = np.zeros((4, 4, 3), np.uint8)
        image[..., 0] = index
        return Record(image, index)

    def name(self, index):
        return f"number {index}"


def _noisy(image, rng):
    """Writes a random number beside the red channel, to tell augmentations apart."""
    image = image.copy()
    image[..., 1] = rng.integers(256)
    image[..., 2] = rng.integers(256)
    return image


def _plain(image):
    # As tall as the real transforms' images whatever comes in.
    return np.resize(image, (4, 4, 3))


def _take(source, count, **options):
    iterator = train_stream(source, _noisy, **({"batch_size": 4, "seed": 0} | options))
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def _assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_a_batch_has_the_documented_arrays():
    (batch,) = _take(_Numbers(10), 1)
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        "image": (np.uint8, (4, 4, 4, 3)),
        "label": (np.int32, (4,)),
        "skipped": (np.int64, (4, MAX_SKIPS)),
    }
    assert (batch["skipped"] == -1).all()


def test_every_epoch_is_another_permutation():
    labels = np.concatenate([batch["label"] for batch in _take(_Numbers(10), 5)]).reshape(2, 10)
    np.testing.assert_array_equal(np.sort(labels), [range(10)] * 2)
    assert (labels[0] != labels[1]).any()


def test_augmentation_differs_by_epoch():
    first, second = (
        {int(label): image.tobytes() for label, image in zip(b["label"], b["image"], strict=True)}
        for b in _take(_Numbers(8), 2, batch_size=8)
    )
    assert all(first[label] != second[label] for label in first)


def test_the_stream_depends_on_its_seed_alone():
    _assert_equal(_take(_Numbers(10), 6), _take(_Numbers(10), 6))
    labels = [[b["label"].tolist() for b in _take(_Numbers(10), 6, seed=s)] for s in (0, 1)]
    assert labels[0] != labels[1]


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_see_the_batches_of_one(count):
    shares = [_take(_Numbers(10), 5, process_index=p, process_count=count) for p in range(count)]
    joined = [
        {key: np.concatenate([share[key] for share in step]) for key in step[0]}
        for step in zip(*shares, strict=True)
    ]
    _assert_equal(joined, _take(_Numbers(10), 5))


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("start", [1, 4, 7])
def test_starting_at_a_step_equals_skipping_to_it(threads, start):
    _assert_equal(
        _take(_Numbers(10), 3, start=start, threads=threads),
        _take(_Numbers(10), 10)[start : start + 3],
    )


def test_starting_late_reads_nothing_earlier():
    source = _Numbers(10)
    _take(source, 1, start=1000, threads=0)
    assert source.reads == 4


def test_the_state_is_the_step():
    source = _Numbers(10)
    iterator = train_stream(source, _noisy, batch_size=4, seed=0, start=2)
    next(iterator)
    assert iterator.get_state() == {"next_index": 3}
    iterator.set_state({"next_index": 6})
    _assert_equal([next(iterator)], _take(source, 7)[6:])
    iterator.close()


def test_a_set_smaller_than_a_batch_fills_it():
    (batch,) = _take(_Numbers(1), 1)
    np.testing.assert_array_equal(batch["label"], 0)


def test_a_bad_record_is_replaced_by_the_next_readable_one():
    batches = _take(_Numbers(10, bad=(3, 4, 9)), 5)
    clean = _take(_Numbers(10), 5)
    replacement = {3: 5, 4: 5, 9: 0}
    skips = {3: [3, 4], 4: [4], 9: [9]}
    for batch, wanted in zip(batches, clean, strict=True):
        expected = [replacement.get(label, label) for label in wanted["label"].tolist()]
        np.testing.assert_array_equal(batch["label"], expected)
        for row, label in zip(batch["skipped"], wanted["label"].tolist(), strict=True):
            skipped = skips.get(label, [])
            np.testing.assert_array_equal(row, skipped + [-1] * (MAX_SKIPS - len(skipped)))


def test_an_epoch_shows_the_one_after_a_bad_record_twice_and_moves_no_other():
    (clean,), (damaged,) = (_take(_Numbers(10, bad), 1, batch_size=10) for bad in ((), (3,)))
    counts = np.bincount(damaged["label"], minlength=10)
    np.testing.assert_array_equal(counts, [1, 1, 1, 0, 2, 1, 1, 1, 1, 1])
    same = clean["label"] != 3
    assert same.sum() == 9
    np.testing.assert_array_equal(damaged["image"][same], clean["image"][same])


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, ""),
        (2, "takes about 11 ms a row"),
        (3, "about 7 ms a row"),
        (21, "about 1 ms"),
        (22, ""),
        (10**6, ""),
    ],
)
def test_a_set_that_is_slow_to_shuffle_is_told_so(count, told):
    assert (told in shuffling_cost(count)) and bool(told) == bool(shuffling_cost(count))


def test_the_order_of_few_records_is_as_dear_as_is_told():
    """Some ten times dearer, at least, than the order of as many as nothing is told of."""

    def seconds(count):
        rows = pipeline.grain.MapDataset.range(count).seed(0).shuffle().repeat()
        begin = time.perf_counter()
        for row in range(30):
            assert 0 <= rows[row] < count
        return time.perf_counter() - begin

    assert seconds(3) > 10 * seconds(2000)


def test_as_many_bad_records_in_a_row_as_can_be_reported_are_passed():
    batches = _take(_Numbers(20, bad=range(MAX_SKIPS)), 5)
    assert min(batch["label"].min() for batch in batches) == MAX_SKIPS


def test_more_bad_records_in_a_row_are_refused_by_name():
    with pytest.raises(
        ValueError, match="more than 8 records in a row.*is damaged.*number 1, number 2"
    ):
        _take(_Numbers(10, bad=range(10)), 1)


FAILURES = [ValueError("at fault"), cv2.error("at fault"), MemoryError("at fault")]


def _failing(error, numbers):
    """Fails for the images of some numbers."""

    def transform(image, rng=None):
        if image[0, 0, 0] in numbers:
            raise error
        return np.resize(image, (4, 4, 3))

    return transform


@pytest.mark.parametrize("error", FAILURES)
def test_what_cannot_be_transformed_is_skipped_in_training_as_what_cannot_be_read(error):
    found, expected = (
        list(itertools.islice(train_stream(source, transform, batch_size=4, seed=0), 5))
        for source, transform in (
            (_Numbers(10), _failing(error, (3, 4, 9))),
            (_Numbers(10, bad=(3, 4, 9)), _failing(error, ())),
        )
    )
    _assert_equal(found, expected)
    assert any((batch["skipped"] == 9).any() for batch in found)


@pytest.mark.parametrize("error", FAILURES)
def test_what_cannot_be_transformed_is_masked_in_evaluation_as_what_cannot_be_read(error):
    found, expected = (
        list(eval_batches(source, transform, batch_size=4))
        for source, transform in (
            (_Numbers(4), _failing(error, (2,))),
            (_Numbers(4, bad=(2,)), _failing(error, ())),
        )
    )
    _assert_equal(found, expected)
    assert found[0]["skipped"].tolist() == [-1, -1, 2, -1]


def test_a_transform_that_fails_for_all_ends_the_stream_with_its_reason():
    every = _failing(ValueError("at fault"), range(10))
    message = "more than 8 .*cannot crop and scale an image of 4 x 4 pixels .*at fault.*number 1"
    with pytest.raises(ValueError, match=message):
        next(train_stream(_Numbers(10), every, batch_size=1, seed=0))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 3, "process_count": 2}, "batch_size is 3; expected a positive multiple"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"process_index": 1}, "process_index is 1; expected 0 <= process_index < 1"),
        ({"start": -1}, "start is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": -1}, "threads is -1"),
        ({"buffer": 0}, "buffer 0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _take(_Numbers(10), 1, **options)


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="the source is empty"):
        _take(_Numbers(0), 1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_evaluation_sees_every_record_once(count):
    shares = [
        list(eval_batches(_Numbers(10), _plain, batch_size=8, process_index=p, process_count=count))
        for p in range(count)
    ]
    assert [len(share) for share in shares] == [2] * count
    joined = {
        key: np.concatenate([batch[key] for step in zip(*shares, strict=True) for batch in step])
        for key in shares[0][0]
    }
    np.testing.assert_array_equal(joined["index"], [*range(10), *[-1] * 6])
    np.testing.assert_array_equal(joined["mask"], np.array([1] * 10 + [0] * 6, np.float32))
    np.testing.assert_array_equal(joined["label"], [*range(10), *[-1] * 6])
    np.testing.assert_array_equal(joined["image"][:, 0, 0, 0], [*range(10), *[0] * 6])
    assert joined["mask"].dtype == np.float32 and (joined["skipped"] == -1).all()


def test_evaluation_can_be_repeated():
    batches = eval_batches(_Numbers(10), _plain, batch_size=4, threads=2)
    _assert_equal(list(batches), list(batches))


def test_evaluation_masks_a_bad_record_and_replaces_nothing():
    (batch,) = eval_batches(_Numbers(4, bad=(2,)), _plain, batch_size=4)
    np.testing.assert_array_equal(batch["mask"], [1, 1, 0, 1])
    np.testing.assert_array_equal(batch["index"], range(4))
    np.testing.assert_array_equal(batch["skipped"], [-1, -1, 2, -1])
    np.testing.assert_array_equal(batch["label"], [0, 1, -1, 3])
    assert not batch["image"][2].any()


def test_worker_processes_give_the_batches_of_threads(tmp_path):
    for i in range(6):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (i, 0, 0)).save(buffer, "PNG")
        data = b"damaged" if i == 2 else buffer.getvalue()
        with open(os.path.join(tmp_path, f"{i}.png"), "wb") as file:
            file.write(data)
    source = open_source("folder", directory=str(tmp_path), split="all")
    iterator = train_stream(source, _noisy, batch_size=4, seed=0, start=3, workers=2)
    batches = [{key: np.array(value) for key, value in next(iterator).items()} for _ in range(4)]
    iterator.close()
    _assert_equal(batches, _take(source, 7)[3:])
    assert any((batch["skipped"] == 2).any() for batch in batches)


def test_an_error_in_a_worker_process_reaches_the_reader(tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"damaged")
    source = open_source("folder", directory=str(tmp_path), split="all")
    iterator = train_stream(source, _noisy, batch_size=1, seed=0, workers=1)
    with pytest.raises(ValueError, match="more than 8 records in a row"):
        next(iterator)
    iterator.close()
