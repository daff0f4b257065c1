"""SSIM and PSNR against scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.metrics
import tiny

from mq_jax.algorithm.losses import psnr_per_image
from mq_jax.images.scale import from_uint8
from mq_jax.metrics.ssim import ssim_per_image

SSIM = tiny.jit(ssim_per_image)
RNG = np.random.default_rng(0)


def photographs():
    """u8[4, 48, 37, 3]: textured, nearly flat, dark, and black beside white."""
    image = skimage.data.astronaut()
    flat = (250 + RNG.integers(0, 2, (48, 37, 3))).astype(np.uint8)
    step = np.where(np.arange(37)[:, None] < 18, 0, 255).astype(np.uint8) * np.ones_like(flat)
    return np.stack([image[100:148, 200:237], flat, image[300:348, 10:47] // 9, step])


PHOTOGRAPHS = photographs()
DAMAGED = {
    "noise": np.clip(PHOTOGRAPHS + RNG.normal(0, 20, PHOTOGRAPHS.shape), 0, 255).astype(np.uint8),
    "one level": np.clip(PHOTOGRAPHS.astype(int) + 1, 0, 255).astype(np.uint8),
    "one level off": np.abs(PHOTOGRAPHS.astype(int) - 1).astype(np.uint8),
    "inverted": 255 - PHOTOGRAPHS,
    "constant": np.full_like(PHOTOGRAPHS, 128),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_ssim_is_that_of_scikit_image(kind):
    found = SSIM(from_uint8(PHOTOGRAPHS), from_uint8(DAMAGED[kind]))
    expected = [
        skimage.metrics.structural_similarity(
            *(pair.astype(np.float64) for pair in (image, other)),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        )
        for image, other in zip(PHOTOGRAPHS, DAMAGED[kind], strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", DAMAGED)
def test_psnr_is_that_of_scikit_image(kind):
    found = psnr_per_image(from_uint8(PHOTOGRAPHS), from_uint8(DAMAGED[kind]))
    expected = [
        skimage.metrics.peak_signal_noise_ratio(image, other, data_range=255)
        for image, other in zip(PHOTOGRAPHS, DAMAGED[kind], strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_equal_images_have_one_and_what_lies_outside_the_range_is_clipped():
    x = from_uint8(PHOTOGRAPHS)
    np.testing.assert_allclose(SSIM(x, x), 1, atol=1e-6)
    np.testing.assert_array_equal(SSIM(x, 3 * x), SSIM(x, jnp.clip(3 * x, -1, 1)))


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="images are 10 x 32 pixels; expected at least 11"):
        ssim_per_image(jnp.zeros((1, 10, 32, 3)), jnp.zeros((1, 10, 32, 3)))
