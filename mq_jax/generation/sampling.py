"""How tokens are drawn, the same for all priors."""

import dataclasses
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.generation.filters import filtered
from mq_jax.generation.guidance import SCHEDULES, doubled, guided
from mq_jax.generation.space import TokenSpace


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Settings of a draw.

    Attributes:
      temperature: above 0; divides the logits.
      top_k: how many of the likeliest codes may be drawn; 0 for all.
      top_p: mass of the likeliest codes that may be drawn, in (0, 1]; after top_k.
      guidance: s of u + s (c - u); 1 for none.
      guidance_schedule: how it grows over the places, or steps: one of guidance.SCHEDULES.
      guidance_power: of `power-cosine`.
      steps: in which a masked prior fills all places; a decoder takes one a place.
      choice_noise: of a masked prior's choice of places, at the first step: scale of the Gumbel
        noise that is added to ln p; it falls to 0.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    guidance_schedule: str = "constant"
    guidance_power: float = 1.0
    steps: int = 12
    choice_noise: float = 4.5

    def __post_init__(self):
        ranges = {
            "temperature": (0 < self.temperature < math.inf, "above 0 and finite"),
            "top_k": (_is_whole(self.top_k) and self.top_k >= 0, "a whole number, at least 0"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "guidance": (0 <= self.guidance < math.inf, "at least 0 and finite"),
            "guidance_schedule": (self.guidance_schedule in SCHEDULES, f"one of {SCHEDULES}"),
            "guidance_power": (0 < self.guidance_power < math.inf, "above 0 and finite"),
            "steps": (_is_whole(self.steps) and self.steps >= 1, "a whole number, at least 1"),
            "choice_noise": (0 <= self.choice_noise < math.inf, "at least 0 and finite"),
        }
        for name, (holds, expected) in ranges.items():
            if not holds:
                raise ValueError(
                    f"Sampling.{name} is {getattr(self, name)!r}; expected {expected}."
                )


def conditions(
    space: TokenSpace, images: jax.Array, labels: jax.Array | None, sampling: Sampling
) -> tuple[jax.Array | None, int]:
    """Labels of the batch that is run.

    Args:
      space: of the tokens.
      images: i32[B].
      labels: i32[B]; None where there are no classes.
      sampling: its settings.

    Returns:
      (i32[B], or i32[2B] where there is guidance, those of no class last, or None; copies of an
      image in it).

    Raises:
      ValueError: labels do not fit, or there is guidance without classes.
    """
    space.check_labels(labels, len(images))
    if sampling.guidance == 1:
        return labels, 1
    if not space.classes:
        raise ValueError(
            f"Sampling.guidance is {sampling.guidance} and there are no classes; expected 1: it "
            "leads away from what is likely without a class."
        )
    return doubled(labels, space.null), 2


def completion(
    space: TokenSpace, images: jax.Array, given: jax.Array | None, known: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Tokens to begin with, and which of them stay.

    Args:
      space: of the tokens.
      images: i32[B].
      given: i32[B, n, J] or None.
      known: bool[B, n], bool[n] or None.

    Returns:
      (i32[B, n, J], zeros where none are given; bool[B, n]).

    Raises:
      ValueError: one is there without the other, or shapes or types do not fit.
    """
    batch, places = len(images), space.places
    if (given is None) != (known is None):
        raise ValueError("Tokens are given without the places that are known, or these alone.")
    if given is None:
        given = jnp.zeros((batch, places, space.levels), jnp.int32)
        return given, jnp.zeros((batch, places), bool)
    if known.shape not in ((places,), (batch, places)) or known.dtype != bool:
        raise ValueError(
            f"Known places are {known.dtype}{list(known.shape)}; expected bool[{places}] or "
            f"bool[{batch}, {places}]."
        )
    if given.shape != (batch, places, space.levels) or not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(
            f"Given tokens are {given.dtype}{list(given.shape)}; expected whole numbers "
            f"[{batch}, {places}, {space.levels}]."
        )
    return jnp.asarray(given, jnp.int32), jnp.broadcast_to(jnp.asarray(known), (batch, places))


def image_keys(rng: jax.Array, images: jax.Array) -> jax.Array:
    """A key for each image, by its number in the whole draw and so whatever the batch.

    Args:
      rng: a key.
      images: i32[B].

    Returns:
      Keys [B].
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, images)


def folded(keys: jax.Array, number: jax.Array | int) -> jax.Array:
    """Each of the keys [B] with a number folded in."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def draw_places(
    model: nn.Module,
    variables: Any,
    context: jax.Array,
    keys: jax.Array,
    sampling: Sampling,
    scale: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Draws all levels of some places, each given those before it.

    Args:
      model: Decoder or Masked.
      variables: its.
      context: f[B, m, C]; f[2B, m, C] where there is guidance, those of no class last.
      keys: [B], one for each image.
      sampling: its settings.
      scale: f32[], of the guidance at this step.

    Returns:
      (tokens i32[B, m, J], ln p f32[B, m] of each place before temperature and filters).
    """
    copies = len(context) // len(keys)
    cache = model.apply(variables, context.shape[0] * context.shape[1], method="level_cache")
    inputs, total, drawn, log_p = context, 0.0, [], 0.0
    for level in range(model.space.levels):
        logits, cache = model.apply(variables, inputs, level, cache, method="level_step")
        if copies == 2:
            logits = guided(logits, scale)
        kept = filtered(
            logits,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
        )
        tokens = jax.vmap(jax.random.categorical)(folded(keys, level), kept)
        own = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)
        log_p = log_p + own[..., 0]
        drawn.append(tokens)
        if level + 1 < model.space.levels:
            vectors = model.apply(variables, tokens, level, method="embed_level")
            total = total + jnp.concatenate([vectors] * copies).astype(jnp.float32)
            inputs = total.astype(context.dtype)
    return jnp.stack(drawn, axis=-1), log_p


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral)
