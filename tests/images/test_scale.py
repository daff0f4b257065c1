"""Pictures for people: small images are enlarged, and every pixel stays what it is."""

import numpy as np
import pytest

from mq_jax.images.scale import comparison, enlarged, enlargement


@pytest.mark.parametrize(
    "height, width, factor",
    [(1, 1, 128), (32, 32, 4), (33, 20, 4), (64, 64, 2), (127, 8, 2), (128, 128, 1), (9, 500, 1)],
)
def test_images_below_128_pixels_are_enlarged_by_the_least_whole_factor(height, width, factor):
    assert enlargement(height, width) == factor
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    found = enlarged(images)
    assert found.shape == (2, factor * height, factor * width, 3)
    for i in range(factor):
        np.testing.assert_array_equal(found[:, i::factor, factor - 1 - i :: factor], images)


def test_a_comparison_of_large_images_is_pixel_exact():
    originals = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    picture = comparison(originals, 255 - originals)
    assert picture.shape == (258, 388, 3)
    np.testing.assert_array_equal(picture[:128, 130:258], originals[1])
    np.testing.assert_array_equal(picture[130:, 260:], 255 - originals[2])
