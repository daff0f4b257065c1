"""Losses and errors of images, against NumPy and scikit-image."""

import jax
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from mq_jax.algorithm.losses import (
    RECONSTRUCTION_LOSSES,
    log_mean_squared_error,
    mean_absolute_error,
    mean_squared_error,
    psnr_per_image,
    squared_error_per_image,
)


def images(seed, limit=1.0):
    shape = (3, 6, 5, 3)
    return np.random.default_rng(seed).uniform(-limit, limit, shape).astype(np.float32)


@pytest.mark.parametrize(
    "name, function, expected",
    [
        ("mse", mean_squared_error, lambda x, y: np.mean((x - y) ** 2)),
        ("l1", mean_absolute_error, lambda x, y: np.mean(np.abs(x - y))),
    ],
)
def test_reconstruction_losses_are_means_over_all_pixels(name, function, expected):
    x, y = images(0), images(1, limit=1.5)
    assert RECONSTRUCTION_LOSSES[name] is function
    np.testing.assert_allclose(function(x, y), expected(x, y), rtol=1e-6)


def test_the_logarithm_is_of_the_whole_batch_and_no_range_of_the_images_moves_its_slope():
    x, y = images(0), images(1, limit=1.5)
    assert RECONSTRUCTION_LOSSES["log-mse"] is log_mean_squared_error
    numbers = 6 * 5 * 3
    # As published: (n / 2) ln of the mean over images of a sum over pixels; a constant apart.
    published = numbers / 2 * np.log(np.mean(np.sum((x - y) ** 2, axis=(1, 2, 3))))
    constant = numbers / 2 * np.log(numbers)
    np.testing.assert_allclose(log_mean_squared_error(x, y), published - constant, rtol=1e-5)
    slope = jax.grad(log_mean_squared_error, argnums=1)(x, y)
    expected = numbers * (y - x) / np.sum((x - y) ** 2)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)
    # On [0, 1], as published, an image's slope is twice as long, and so is the way to go.
    halved = jax.grad(log_mean_squared_error, argnums=1)((x + 1) / 2, (y + 1) / 2)
    np.testing.assert_allclose(halved, 2 * slope, rtol=1e-3, atol=1e-6)


def test_squared_errors_are_one_for_each_image_on_the_scale_from_minus_one_to_one():
    errors = squared_error_per_image(images(0), images(1))
    assert errors.shape == (3,)
    np.testing.assert_allclose(errors, np.mean((images(0) - images(1)) ** 2, axis=(1, 2, 3)), 1e-6)
    np.testing.assert_allclose(squared_error_per_image(images(0), images(0) + 0.5), 0.25, 1e-5)


@pytest.mark.parametrize("limit", [1.0, 1.5])
def test_psnr_is_that_of_scikit_image_on_clipped_reconstructions(limit):
    x, y = images(0), images(1, limit)
    expected = [
        peak_signal_noise_ratio(a, np.clip(b, -1, 1), data_range=2)
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(psnr_per_image(x, y), expected, rtol=1e-5)


def test_psnr_does_not_depend_on_the_range_the_images_are_stated_in():
    x, y = images(0), images(1)
    expected = [
        peak_signal_noise_ratio((a + 1) / 2, (b + 1) / 2, data_range=1)
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(psnr_per_image(x, y), expected, rtol=1e-5)


def test_a_perfect_reconstruction_has_106_decibels():
    np.testing.assert_allclose(psnr_per_image(images(0), images(0)), 106.02, atol=0.01)
