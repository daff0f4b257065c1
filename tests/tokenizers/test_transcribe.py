"""Folders through a tokenizer: what is read, coded and written at the same time, in which order."""

import threading

import cv2
import exports
import numpy as np
import pytest

from mq_jax.images.decode import USUAL
from mq_jax.tokenizers import transcribe
from mq_jax.tokenizers.shards import Tokens
from mq_jax.tokenizers.stages import Stages

COUNT, BATCH = 24, 4


class Codes:
    """A tokenizer whose code is an image's first value; `seen` is told before each batch."""

    downsampling = 4

    def __init__(self, seen=lambda batch: None):
        self._seen, self._batches = seen, 0

    def padded(self, images):
        missing = [(0, -side % 4) for side in images.shape[-3:-1]]
        return np.pad(images, [*missing, (0, 0)], mode="edge")

    def encode(self, images):
        self._seen(self._batches)
        self._batches += 1
        return images[:, ::4, ::4, 0].astype(np.int32)

    def encode_within(self, images, sizes):
        return self.encode(images)


def write(folder, sides):
    for number, side in enumerate(sides):
        image = exports.images(1, side, side, seed=number)[0]
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    return folder, [f"{number:02}.png" for number in range(len(sides))]


@pytest.fixture
def images(tmp_path):
    """Images of one size, and their names."""
    return write(tmp_path, [8] * COUNT)


def encoded(root, names, tokenizer, stages):
    """The parts of a folder."""
    items = transcribe.read_images(root, names, None, USUAL, BATCH, stages)
    return list(transcribe.encode_images(tokenizer, items, BATCH, print, stages))


def test_while_a_batch_is_coded_the_next_is_laid_out_and_one_more_is_read(images, monkeypatch):
    """One thread; the first batch waits until the third is read."""
    read, known, third = transcribe.read_image, [], threading.Event()

    def noted(path, reading):
        image = read(path, reading)
        known.append(path.name)
        if len(known) == 3 * BATCH:
            third.set()
        return image

    monkeypatch.setattr(transcribe, "read_image", noted)
    tokenizer = Codes(lambda batch: batch or third.wait(60) or pytest.fail("it is not read"))
    parts = encoded(*images, tokenizer, Stages(1))
    assert [name for part in parts for name in part.names] == images[1] == known


@pytest.mark.parametrize("threads", [2, 5])
def test_whatever_the_threads_the_parts_are_the_same(tmp_path, monkeypatch, threads):
    """Of several threads, each first image comes after the one behind it."""
    root, names = write(tmp_path, [8, 9, 30, 8, 13, 17, 8, 21, 40, 9, 33, 12] * 3)
    monkeypatch.setattr(transcribe, "_OWN_PROGRAMS", 2)
    alone = encoded(root, names, Codes(), Stages(1))
    read, after = transcribe.read_image, {name: threading.Event() for name in names}

    def backwards(path, reading):
        number = names.index(path.name)
        if number % threads == 0 and number + 1 < len(names):
            assert after[names[number + 1]].wait(60)
        image = read(path, reading)
        after[path.name].set()
        return image

    monkeypatch.setattr(transcribe, "read_image", backwards)
    together = encoded(root, names, Codes(), Stages(threads))
    assert [part.names for part in together] == [part.names for part in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.sizes, other.sizes)
    assert len({part.indices.shape[1:] for part in alone}) > 4


def test_large_images_are_read_ahead_by_their_pixels(images, monkeypatch):
    """The room is that of two images; the thread may have a third under way."""
    monkeypatch.setattr(transcribe, "AHEAD_PIXELS", 2 * 8 * 8)
    read, begun, taken = transcribe.read_image, [], []

    def noted(path, reading):
        begun.append(path.name)
        assert len(begun) <= len(taken) + 3
        return read(path, reading)

    monkeypatch.setattr(transcribe, "read_image", noted)
    for item in transcribe.read_images(*images, None, USUAL, COUNT, Stages(1)):
        # Counted at first: the thread goes on as soon as there is room.
        taken.append(item.name)
    assert taken == images[1]


def test_shards_are_read_within_the_seconds_of_reading(monkeypatch):
    part = Tokens(["a"], np.zeros((1, 2, 2), np.uint8), np.int32([[8, 8]]))
    tokenizer, stages = Codes(), Stages(1)
    tokenizer.decode = lambda indices: np.zeros((len(indices), 8, 8, 3), np.uint8)
    (item,) = transcribe.decode_tokens(tokenizer, [part], {"a"}, 4, stages)
    assert item.name == "a" and stages.told().startswith("Reading 0.0 s (0.0 s waited for), net")
