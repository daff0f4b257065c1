"""The structural similarity of Wang et al. (2004)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# The window: Gaussian, cut at 3.5 standard deviations.
SIGMA = 1.5
RADIUS = 5
SMALLEST = 2 * RADIUS + 1

K1, K2 = 0.01, 0.03

# Peak to peak, of images in [-1, 1].
_RANGE = 2


def ssim_per_image(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """The mean structural similarity of each image (Wang et al., 2004, equation 13).

    SSIM = (2 m n + C1) (2 c + C2) / ((m^2 + n^2 + C1) (v + w + C2)) with the windowed means m, n,
    variances v, w and covariance c of the two images, averaged over the channels and over the
    positions at which the window lies inside.

    Args:
      images: f32[B, H, W, 3] in [-1, 1].
      reconstructions: f32[B, H, W, 3]; clipped to [-1, 1] first, as a viewer would.

    Returns:
      f32[B], at most 1.

    Raises:
      ValueError: the images are smaller than the window.
    """
    if min(images.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"images are {images.shape[1]} x {images.shape[2]} pixels; expected at least "
            f"{SMALLEST}, SSIM's window."
        )
    x, y = images, jnp.clip(reconstructions, -1, 1)
    mean_x, mean_y, variance_x, variance_y, covariance = _windowed_moments(x, y)
    # The luminance is not symmetric: black is 0.
    mean_x, mean_y = mean_x + 1, mean_y + 1
    c1, c2 = (K1 * _RANGE) ** 2, (K2 * _RANGE) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _windowed_moments(x, y):
    """Means, variances and covariance where the window lies inside, f32[B, H - 10, W - 10, 3]."""
    vertical, horizontal = (functools.partial(_shifted, axis=axis) for axis in (1, 2))
    # E[x^2] - E[x]^2 would cancel beside an edge. The total (co)variance is the mean of those
    # within the columns plus that of the columns' means: sums of squared deviations alone.
    column_x, column_y = _mean(vertical(x)), _mean(vertical(y))
    within = _deviations(vertical(x), vertical(y), column_x, column_y)
    mean_x, mean_y = _mean(horizontal(column_x)), _mean(horizontal(column_y))
    between = _deviations(horizontal(column_x), horizontal(column_y), mean_x, mean_y)
    totals = (_mean(horizontal(w)) + b for w, b in zip(within, between, strict=True))
    return mean_x, mean_y, *totals


def _deviations(parts_x, parts_y, mean_x, mean_y):
    """The windowed variances and the covariance about these means."""
    pairs = [(x - mean_x, y - mean_y) for x, y in zip(parts_x, parts_y, strict=True)]
    products = zip(*((x * x, y * y, x * y) for x, y in pairs), strict=True)
    return [_mean(parts) for parts in products]


def _mean(parts):
    """The windowed mean of shifted images."""
    distances = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-(distances**2) / (2 * SIGMA**2))
    window = (window / window.sum()).astype(np.float32)
    return sum(weight * part for weight, part in zip(window, parts, strict=True))


def _shifted(images, axis):
    """The images at each place of the window along an axis."""
    # A sum of shifted images: a convolution of one channel at a time is slow on a CPU.
    size = images.shape[axis] - 2 * RADIUS
    return [jax.lax.slice_in_dim(images, i, i + size, axis=axis) for i in range(SMALLEST)]
