"""Reconstruction losses and errors. Images are in [-1, 1] throughout."""

import jax
import jax.numpy as jnp


def mean_squared_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """mean((x - x_hat)^2), the paper's reconstruction loss for MQVAE.

    Args:
      images: f32[B, H, W, 3] in [-1, 1].
      reconstructions: f32[B, H, W, 3].

    Returns:
      f32[]; on [-1, 1], so four times the value on [0, 1].
    """
    return jnp.mean(jnp.square(images - reconstructions))


def mean_absolute_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """mean(|x - x_hat|), the reconstruction loss of the authors' code.

    Args:
      images: f32[B, H, W, 3] in [-1, 1].
      reconstructions: f32[B, H, W, 3].

    Returns:
      f32[].
    """
    return jnp.mean(jnp.abs(images - reconstructions))


RECONSTRUCTION_LOSSES = {"mse": mean_squared_error, "l1": mean_absolute_error}


def squared_error_per_image(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """The mean squared error of each image.

    Args:
      images: f32[B, H, W, 3] in [-1, 1].
      reconstructions: f32[B, H, W, 3].

    Returns:
      f32[B], on the scale of [-1, 1].
    """
    return jnp.mean(jnp.square(images - reconstructions), axis=(1, 2, 3))


def psnr_per_image(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """The peak signal-to-noise ratio of each image, 10 log10(2^2 / mse), in decibels.

    Args:
      images: f32[B, H, W, 3] in [-1, 1]; the peak-to-peak range is 2.
      reconstructions: f32[B, H, W, 3]; clipped to [-1, 1] first, as a viewer would.

    Returns:
      f32[B], in decibels.
    """
    error = squared_error_per_image(images, jnp.clip(reconstructions, -1, 1))
    # A perfect reconstruction has infinite PSNR; the floor caps it at 106 dB.
    return 10 * jnp.log10(4 / jnp.maximum(error, 1e-10))
