"""The digest of a set of images: of its pixels and numbers, however it is cut into batches."""

import numpy as np
import pytest

from mq_jax.metrics.fingerprint import PixelDigest

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)


def batches(images, size, order=None):
    """As an evaluation pass yields them: the last one padded, with a mask of 0."""
    rows = np.arange(len(images)) if order is None else np.asarray(order)
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        padding = size - len(own)
        blank = np.zeros((padding, *images.shape[1:]), np.uint8)
        yield {
            "index": np.concatenate([own, np.full(padding, -1)]),
            "image": np.concatenate([images[own], blank]),
            "mask": np.concatenate([np.ones(len(own)), np.zeros(padding)]),
        }


def digest(images, size=4, order=None):
    found = PixelDigest()
    for batch in batches(images, size, order):
        found.add(batch)
    return found.of_all()


def test_batches_and_their_order_do_not_matter():
    text, count = digest(IMAGES)
    assert len(text) == 32 and count == 6
    assert digest(IMAGES, 1) == digest(IMAGES, 5) == digest(IMAGES, 4, [5, 0, 3, 1, 4, 2])
    assert digest(IMAGES) == (text, 6)


@pytest.mark.parametrize(
    "other",
    [
        IMAGES[:5],
        np.where(np.arange(6)[:, None, None, None] == 2, IMAGES ^ 1, IMAGES),
        IMAGES[[1, 0, 2, 3, 4, 5]],
        IMAGES.reshape(6, 2, 8, 3),
    ],
    ids=["an image less", "a bit of an image", "two images exchanged", "another shape"],
)
def test_another_set_has_another_digest(other):
    assert digest(other)[0] != digest(IMAGES)[0]
