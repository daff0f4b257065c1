"""The augmentations against NumPy."""

import tracemalloc

import cv2
import numpy as np
import pytest

from mq_jax.images import transforms
from mq_jax.images.transforms import (
    _enlarged_window,
    apply_transform,
    make_eval_transform,
    make_train_transform,
)


def _image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _train(**changes):
    options = {"image_size": 32, "crop": 0, "resize": False, "flip": 0.0, "filter": "area"}
    return make_train_transform(**(options | changes))


def _eval(**changes):
    return make_eval_transform(
        **({"image_size": 32, "crop": 0, "resize": False, "filter": "area"} | changes)
    )


def _is_window(crop, image):
    windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape)
    return (windows == crop).all((-1, -2, -3)).any()


def test_cifar_images_pass_unchanged():
    image = _image(32, 32)
    np.testing.assert_array_equal(_train()(image, np.random.default_rng(0)), image)
    np.testing.assert_array_equal(_eval()(image), image)


def test_a_training_crop_is_a_window_of_the_image():
    image = _image(40, 50)
    rng = np.random.default_rng(0)
    crops = [_train()(image, rng) for _ in range(20)]
    assert all(_is_window(crop, image) for crop in crops)
    assert len({crop.tobytes() for crop in crops}) > 10


def test_random_crops_reach_every_corner():
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, -1)
    rng = np.random.default_rng(0)
    seen = {int(_train(image_size=1)(image, rng)[0, 0, 0]) for _ in range(100)}
    assert seen == {0, 1, 2, 3}


def test_evaluation_crops_the_centre():
    image = _image(40, 50)
    np.testing.assert_array_equal(_eval()(image), image[4:36, 9:41])


def test_the_area_filter_averages_when_it_halves():
    image = _image(64, 64)
    expected = image.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(_eval(resize=True)(image) - expected).max() <= 0.5


def test_the_bilinear_filter_aliases_when_it_shrinks():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::4] = 255
    assert np.ptp(_eval(resize=True)(stripes)) == 0
    shifted = np.roll(stripes, 1, axis=1)
    bilinear = _eval(resize=True, filter="bilinear")
    assert bilinear(stripes).mean() != bilinear(shifted).mean()


def test_resizing_scales_the_smaller_side():
    left_half_dark = np.zeros((64, 128, 3), np.uint8)
    left_half_dark[:, 64:] = 255
    out = _eval(resize=True)(left_half_dark)
    np.testing.assert_array_equal(out[:, :16], 0)
    np.testing.assert_array_equal(out[:, 16:], 255)


def test_celeba_crops_before_it_resizes():
    image = np.zeros((218, 178, 3), np.uint8)
    image[39:179, 19:159] = 200
    out = _eval(image_size=128, crop=140, resize=True)(image)
    assert out.shape == (128, 128, 3) and (out == 200).all()


@pytest.mark.parametrize("shape", [(20, 20), (20, 60), (60, 20), (1, 1)])
@pytest.mark.parametrize("crop", [0, 48])
def test_an_image_smaller_than_the_crop_is_enlarged(shape, crop):
    image = np.full((*shape, 3), 7, np.uint8)
    for out in (_train(crop=crop)(image, np.random.default_rng(0)), _eval(crop=crop)(image)):
        assert out.shape == (32, 32, 3) and (out == 7).all()


def _enlarged(image, size, top, left):
    """A crop of the image that OpenCV enlarges whole."""
    height, width = image.shape[:2]
    smaller = min(height, width)
    shape = round(width * size / smaller), round(height * size / smaller)
    whole = cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR)
    slack = shape[1] - size, shape[0] - size
    top, left = round(top * slack[0]), round(left * slack[1])
    return whole[top : top + size, left : left + size], shape[::-1], (top, left)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 2000), 128), ((2000, 1), 128), ((3, 700), 50), ((33, 77), 128), ((9, 10), 77)],
)
@pytest.mark.parametrize("place", [0, 0.37, 0.5, 1])
def test_a_window_of_an_enlarged_image_is_what_opencv_makes_of_the_whole(shape, size, place):
    image = _image(*shape)
    expected, whole, corner = _enlarged(image, size, place, place)
    np.testing.assert_array_equal(_enlarged_window(image, whole, corner, size), expected)


@pytest.mark.parametrize("options", [{"resize": True}, {"resize": False}, {"crop": 48}])
@pytest.mark.parametrize("shape", [(1, 400), (300, 7), (20, 21)])
def test_enlarging_whole_or_by_windows_is_the_same_in_both_transforms(options, shape, monkeypatch):
    image, outs = _image(*shape), []
    for largest in (2**24, 0):
        monkeypatch.setattr(transforms, "_LARGEST_ENLARGED", largest)
        rng = np.random.default_rng(5)
        outs.append([_eval(**options)(image), *(_train(**options)(image, rng) for _ in range(5))])
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize(("shape", "size"), [((1, 40_000), 128), ((1, 60_000), 512)])
@pytest.mark.parametrize("crop", [0, 140])
def test_elongated_images_take_little_memory(shape, size, crop):
    for image in (_image(*shape), _image(*shape[::-1])):
        tracemalloc.start()
        options = {"image_size": size, "resize": True, "crop": crop}
        for out in (_eval(**options)(image), _train(**options)(image, np.random.default_rng(0))):
            assert out.shape == (size, size, 3) and out.std() > 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1.5e8


def test_whatever_a_transform_raises_names_the_image_as_bad():
    def fail(image, rng):
        raise cv2.error("too thin")

    with pytest.raises(ValueError, match="an image of 3 x 5 pixels .error: too thin."):
        apply_transform(fail, _image(3, 5), np.random.default_rng(0))


@pytest.mark.parametrize("flip, expected", [(0.0, 0), (0.5, 500), (1.0, 1000)])
def test_flips_come_with_their_probability(flip, expected):
    image = _image(32, 32)
    rng = np.random.default_rng(0)
    transform = _train(flip=flip)
    flipped = sum((transform(image, rng) == image[:, ::-1]).all() for _ in range(1000))
    assert abs(flipped - expected) < 60 and (flipped == expected or flip == 0.5)


def test_equal_generators_give_equal_images():
    transform = _train(image_size=16, crop=30, resize=True, flip=0.5)
    first, second = (transform(_image(40, 50), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_results_are_contiguous():
    image = _image(40, 50)
    assert _train(flip=1.0)(image, np.random.default_rng(0)).flags.c_contiguous
    assert _eval()(image).flags.c_contiguous


@pytest.mark.parametrize(
    "change, message",
    [
        ({"filter": "cubic"}, "filter is 'cubic'; expected one of"),
        ({"image_size": 0}, "image_size is 0"),
        ({"crop": -1}, "crop is -1"),
        ({"flip": 1.5}, "flip is 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        _train(**change)
