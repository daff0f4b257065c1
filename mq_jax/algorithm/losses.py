"""Reconstruction and adversarial losses, and errors. Images are in [-1, 1] throughout."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Keeps the adaptive weight finite where the adversarial gradient vanishes (Esser et al., 2021).
ADAPTIVE_FLOOR = 1e-4


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


def log_mean_squared_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """(n / 2) ln of the mean squared error, n the numbers of an image.

    What is left of a Gaussian likelihood once its variance is the best (Takida et al., 2022,
    SQ-VAE), in nats an image. The logarithm is of the whole batch: parts of it do not add up.

    Args:
      images: f32[B, H, W, 3].
      reconstructions: f32[B, H, W, 3].

    Returns:
      f32[].
    """
    numbers = images[0].size
    # Finite where a reconstruction is perfect.
    return numbers / 2 * jnp.log(mean_squared_error(images, reconstructions) + 1e-12)


RECONSTRUCTION_LOSSES = {
    "mse": mean_squared_error,
    "l1": mean_absolute_error,
    "log-mse": log_mean_squared_error,
}


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


def hinge_generator_loss(fake: jax.Array) -> jax.Array:
    """-mean(D(x_hat)), the generator's side of the hinge loss (Lim & Ye, 2017).

    Args:
      fake: f32[...], logits of the discriminator on reconstructions.

    Returns:
      f32[].
    """
    return -jnp.mean(fake)


def hinge_discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """(mean(max(0, 1 - D(x))) + mean(max(0, 1 + D(x_hat)))) / 2.

    Args:
      real: f32[...], logits on images.
      fake: f32[...], logits on reconstructions.

    Returns:
      f32[].
    """
    return (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))) / 2


def nonsaturating_generator_loss(fake: jax.Array) -> jax.Array:
    """mean(-log sigmoid(D(x_hat))), the non-saturating loss (Goodfellow et al., 2014).

    Args:
      fake: f32[...], logits of the discriminator on reconstructions.

    Returns:
      f32[].
    """
    return jnp.mean(jax.nn.softplus(-fake))


def nonsaturating_discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """(mean(-log sigmoid(D(x))) + mean(-log sigmoid(-D(x_hat)))) / 2.

    Args:
      real: f32[...], logits on images.
      fake: f32[...], logits on reconstructions.

    Returns:
      f32[].
    """
    return (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))) / 2


# The generator's and the discriminator's side of each adversarial loss.
ADVERSARIAL_LOSSES = {
    "hinge": (hinge_generator_loss, hinge_discriminator_loss),
    "non-saturating": (nonsaturating_generator_loss, nonsaturating_discriminator_loss),
}


def adaptive_weight(
    task_loss: Callable[[jax.Array], jax.Array],
    adversarial_loss: Callable[[jax.Array], jax.Array],
    last_layer: Callable[[dict[str, jax.Array], jax.Array], jax.Array],
    head: dict[str, jax.Array],
    features: jax.Array,
) -> jax.Array:
    """a = |d task / dW| / (|d adversarial / dW| + 1e-4), W the decoder's last kernel.

    Esser et al. (2021), equation 7. The two gradients go back to the reconstructions and
    through the last layer, no further.

    Args:
      task_loss: x_hat f32[B, H, W, 3] -> f32[].
      adversarial_loss: x_hat f32[B, H, W, 3] -> f32[].
      last_layer: (head, features) -> x_hat.
      head: parameters of the last layer, W its `kernel`.
      features: f32[B, H, W, C], what the last layer gets.

    Returns:
      f32[], at least 0; a constant to every derivative.
    """
    # A weight is no part of what is minimised. Stopped at all that it depends on, so that no
    # derivative of these gradients is ever traced.
    head, features = jax.lax.stop_gradient((head, features))
    x_hat, pullback = jax.vjp(lambda head: last_layer(head, features), head)
    task, adversarial = (
        jnp.linalg.norm(pullback(jax.grad(loss)(x_hat))[0]["kernel"].ravel())
        for loss in (task_loss, adversarial_loss)
    )
    return task / (adversarial + ADAPTIVE_FLOOR)


def gradient_penalty(
    discriminator: Callable[[jax.Array], jax.Array], images: jax.Array
) -> jax.Array:
    """R1 without its factor: mean over images of |d D(x) / dx|^2 (Mescheder et al., 2018).

    Args:
      discriminator: images f32[B, H, W, 3] -> logits f32[B, h, w, 1], summed over an image.
      images: f32[B, H, W, 3] in [-1, 1].

    Returns:
      f32[].
    """
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(images)
    return jnp.mean(jnp.sum(jnp.square(gradient), axis=(1, 2, 3)))


def lecam_loss(real: jax.Array, fake: jax.Array, anchors: jax.Array) -> jax.Array:
    """mean((D(x) - anchor_fake)^2) + mean((D(x_hat) - anchor_real)^2) (Tseng et al., 2021).

    Args:
      real: f32[...], logits on images.
      fake: f32[...], logits on reconstructions.
      anchors: f32[2], moving averages of the logits on images and on reconstructions.

    Returns:
      f32[].
    """
    return jnp.mean(jnp.square(real - anchors[1])) + jnp.mean(jnp.square(fake - anchors[0]))
