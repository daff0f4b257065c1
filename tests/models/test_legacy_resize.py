"""The resize of TensorFlow 1 against NumPy's interpolation."""

import numpy as np
import pytest

from mq_jax.models.legacy_resize import resize_as_tensorflow_1


@pytest.mark.parametrize(("height", "width", "side"), [(7, 5, 23), (32, 64, 17), (9, 9, 9)])
def test_pixels_lie_at_multiples_of_the_ratio_and_the_last_one_is_repeated(height, width, side):
    image = np.random.default_rng(0).uniform(0, 255, (1, height, width, 2)).astype(np.float32)

    def along(values, size):
        return np.interp(np.arange(side) * size / side, np.arange(size), values)

    rows = np.apply_along_axis(along, 1, image.astype(np.float64), height)
    expected = np.apply_along_axis(along, 2, rows, width)
    found = resize_as_tensorflow_1(image, side)
    assert found.shape == (1, side, side, 2)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_it_is_not_the_resize_of_half_pixel_centres():
    """Twice as large: 0, 0.5, 1, 1 of the pixels 0 and 1, where half pixels give 0, .25, .75, 1."""
    found = resize_as_tensorflow_1(np.float32([[[[0], [1]]]]), 4)
    np.testing.assert_array_equal(found[0, 0, :, 0], [0, 0.5, 1, 1])
