"""Stored views: the evaluation's, and LlamaGen's crops of it, against slices by hand."""

import numpy as np
import pytest

from mq_jax.images.transforms import make_eval_transform
from mq_jax.tokensets.views import make_views

PREPARATION = {"image_size": 32, "crop": 0, "resize": True, "filter": "area"}
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def test_the_centre_is_the_view_of_evaluation_and_the_flip_its_mirror():
    names, views = make_views("center,flip", PREPARATION)
    expected = make_eval_transform(**PREPARATION)(IMAGE)
    assert names == ("center", "flip")
    np.testing.assert_array_equal(views(IMAGE), [expected, expected[:, ::-1]])


@pytest.mark.parametrize("written, larger", [("1.1", 35), ("1.05", 33), ("2", 64)])
def test_a_ten_crop_is_four_corners_and_the_centre_of_a_larger_square_and_of_its_mirror(
    written, larger
):
    names, views = make_views(f"ten-crop:{written}", PREPARATION)
    whole = make_eval_transform(**{**PREPARATION, "image_size": larger})(IMAGE)
    assert whole.shape == (larger, larger, 3)
    mirror, middle = whole[:, ::-1], (larger - 32) // 2
    crops = []
    for square in (whole, mirror):
        crops += [square[:32, :32], square[:32, -32:], square[-32:, :32], square[-32:, -32:]]
        crops.append(square[middle : middle + 32, middle : middle + 32])
    np.testing.assert_array_equal(views(IMAGE), crops)
    assert names[0] == f"ten-crop:{written} top-left"
    assert names[5] == f"ten-crop:{written} top-left of the mirror"
    assert len(set(names)) == 10


def test_a_ten_crop_without_a_range_is_that_of_both_published_ones():
    names, views = make_views("ten-crop,center", PREPARATION)
    explicit = make_views("ten-crop:1.1,ten-crop:1.05,center", PREPARATION)
    assert names == explicit[0] and len(names) == 21
    np.testing.assert_array_equal(views(IMAGE), explicit[1](IMAGE))


def test_random_crops_are_patches_of_the_image_or_its_mirror_and_more_of_them_begin_alike():
    preparation = {**PREPARATION, "resize": False}
    names, views = make_views("random:12", preparation)
    crops = views(IMAGE)
    assert crops.shape == (12, 32, 32, 3) and names[-1] == "random 11"
    windows = np.lib.stride_tricks.sliding_window_view(IMAGE, (32, 32, 3)).reshape(-1, 32, 32, 3)
    patches = {window.tobytes() for window in windows}
    ways = {(c.tobytes() in patches, c[:, ::-1].tobytes() in patches) for c in crops}
    assert ways == {(True, False), (False, True)}
    assert len({crop.tobytes() for crop in crops}) == 12
    np.testing.assert_array_equal(make_views("random:3", preparation)[1](IMAGE), crops[:3])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("centre", "'centre' is no view; expected center, flip, ten-crop"),
        ("", "'' is no view"),
        ("random:0", "'random:0' is no view"),
        ("center,center", "names a view twice"),
        ("ten-crop,ten-crop:1.1", "names a view twice"),
        ("ten-crop:1.01", "crops from 32; expected at least 33 and at most 64"),
        ("ten-crop:3", "crops from 96; expected at least 33 and at most 64"),
    ],
)
def test_views_that_cannot_be_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        make_views(choice, PREPARATION)
