"""Classifier-free guidance (Ho & Salimans, 2022)."""

import jax
import jax.numpy as jnp
import numpy as np

SCHEDULES = ("constant", "linear", "power-cosine")


def guidance_scales(scale: float, steps: int, schedule: str, power: float = 1.0) -> np.ndarray:
    """The scale of every step, r = i / steps of the way.

    constant: s; linear: 1 + (s - 1) r; power-cosine: 1 + (s - 1) (1 - cos(pi r^power)) / 2 (Yu et
    al., 2024, RAR).

    Args:
      scale: s; 1 for no guidance.
      steps: how many.
      schedule: one of SCHEDULES.
      power: of the last.

    Returns:
      f32[steps].

    Raises:
      ValueError: there is no such schedule.
    """
    way = np.arange(steps) / steps
    shapes = {
        "constant": np.ones(steps),
        "linear": way,
        "power-cosine": (1 - np.cos(np.pi * way**power)) / 2,
    }
    if schedule not in shapes:
        raise ValueError(f"The guidance's schedule is {schedule!r}; expected one of {SCHEDULES}.")
    return (1 + (scale - 1) * shapes[schedule]).astype(np.float32)


def doubled(labels: jax.Array | None, null: int) -> jax.Array:
    """Labels i32[B], then as many of no class: i32[2B]."""
    return jnp.concatenate([labels, jnp.full_like(labels, null)])


def guided(logits: jax.Array, scale: jax.Array) -> jax.Array:
    """u + s (c - u).

    Args:
      logits: f32[2B, ...], c of the classes and then u of none.
      scale: s, f32[].

    Returns:
      f32[B, ...].
    """
    conditional, unconditional = jnp.split(logits, 2)
    return unconditional + scale * (conditional - unconditional)


def drop_labels(
    labels: jax.Array | None, null: int, rate: float, rng: jax.Array
) -> jax.Array | None:
    """Labels, each replaced by none with a probability, so that a prior learns both.

    Args:
      labels: i32[B]; None where there are no classes.
      null: the label that stands for no class.
      rate: the probability.
      rng: a key.

    Returns:
      i32[B] or None.
    """
    if labels is None or not rate:
        return labels
    return jnp.where(jax.random.bernoulli(rng, rate, labels.shape), null, labels)
