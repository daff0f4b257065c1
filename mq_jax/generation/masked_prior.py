"""A masked transformer as a prior: its loss, and all places in a few steps."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.generation.guidance import drop_labels, guidance_scales
from mq_jax.generation.losses import Prediction, cross_entropy
from mq_jax.generation.masked import Masked
from mq_jax.generation.masking import (
    choose_places,
    cosine_count,
    lowest,
    still_masked,
    uniform_count,
)
from mq_jax.generation.sampling import (
    Sampling,
    completion,
    conditions,
    draw_places,
    folded,
    image_keys,
)
from mq_jax.generation.space import TokenSpace


@dataclasses.dataclass(frozen=True)
class MaskedPrior:
    """The contract of prior.py, by a masked transformer.

    Attributes:
      model: the transformer.
      class_dropout: probability that a training image has no class.
      smoothing: of the labels, in training alone, in [0, 1).
    """

    model: Masked
    class_dropout: float = 0.1
    smoothing: float = 0.1

    @property
    def space(self) -> TokenSpace:
        """Of the tokens."""
        return self.model.space

    def init(self, rng: jax.Array) -> Any:
        """As Prior.init."""
        tokens = jnp.zeros((1, self.space.places, self.space.levels), jnp.int32)
        labels = jnp.zeros(1, jnp.int32)
        return self.model.init(rng, tokens, labels, tokens[..., 0] > 0)["params"]

    def loss(
        self,
        params: Any,
        tokens: jax.Array,
        labels: jax.Array | None,
        rng: jax.Array,
        *,
        train: bool,
    ) -> Prediction:
        """As Prior.loss: the mean over the masked places of the batch, as many as a cosine says."""
        self.space.check(tokens, labels)
        way_rng, place_rng, label_rng, dropout_rng = jax.random.split(rng, 4)
        counts = cosine_count(jax.random.uniform(way_rng, len(tokens)), self.space.places)
        masked = choose_places(place_rng, counts, self.space.places)
        if train:
            labels = drop_labels(labels, self.space.null, self.class_dropout, label_rng)
        logits = self.model.apply(
            {"params": params},
            *(tokens, labels, ~masked),
            train=train,
            rngs={"dropout": dropout_rng},
        )
        weights = jnp.broadcast_to(masked[..., None], tokens.shape).astype(jnp.float32)
        predicted = weights.sum()
        nats = (weights * cross_entropy(logits, tokens)).sum()
        smoothing = self.smoothing if train else 0.0
        smooth = (weights * cross_entropy(logits, tokens, smoothing)).sum()
        return Prediction(smooth / predicted, nats, predicted)

    def likelihood(
        self, params: Any, tokens: jax.Array, labels: jax.Array | None, rng: jax.Array
    ) -> Prediction:
        """As Prior.likelihood: an unbiased draw of its bound by all orders of the places.

        -ln p <= n E_m [mean over masked places of -ln p(t_p | known)], m of the n places masked, m
        uniform in 1 to n (Uria et al., 2014); equal where all orders are as good.
        """
        self.space.check(tokens, labels)
        way_rng, place_rng = jax.random.split(rng)
        counts = uniform_count(jax.random.uniform(way_rng, len(tokens)), self.space.places)
        masked = choose_places(place_rng, counts, self.space.places)
        logits = self.model.apply({"params": params}, tokens, labels, ~masked)
        weights = masked * (self.space.places / counts[:, None])
        nats = (weights[..., None] * cross_entropy(logits, tokens)).sum()
        return Prediction(nats / tokens.size, nats, jnp.float32(tokens.size))

    def sample(
        self,
        params: Any,
        images: jax.Array,
        labels: jax.Array | None,
        rng: jax.Array,
        sampling: Sampling,
        *,
        given: jax.Array | None = None,
        known: jax.Array | None = None,
        front: int = 0,
    ) -> jax.Array:
        """As Prior.sample; known places are told to all others, those at the front likewise."""
        settings = {"given": given, "known": known}
        return self.fill(params, images, labels, rng, sampling, **settings)[0]

    def fill(
        self,
        params: Any,
        images: jax.Array,
        labels: jax.Array | None,
        rng: jax.Array,
        sampling: Sampling,
        *,
        given: jax.Array | None = None,
        known: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Draws tokens: each step draws all places and keeps those it is surest of.

        Surest by ln p + choice_noise (1 - (t + 1) / T) Gumbel; a place that is kept stays.

        Args:
          params: the parameters.
          images: i32[B], numbers of the images in the whole draw.
          labels: i32[B], or None where there are no classes.
          rng: a key, the same for the whole draw.
          sampling: its settings.
          given: i32[B, n, J], tokens that are kept where they are known.
          known: bool[B, n] or bool[n].

        Returns:
          (tokens i32[B, n, J]; bool[T, B, n], the places that each of the T steps filled).

        Raises:
          ValueError: as Prior.sample's.
        """
        labels, copies = conditions(self.space, images, labels, sampling)
        tokens, known = completion(self.space, images, given, known)
        keys, steps = image_keys(rng, images), sampling.steps
        first = (~known).sum(-1)

        def step(carry, here):
            tokens, known = carry
            number, scale = here
            now = folded(keys, number)
            context = self.model.apply(
                {"params": params},
                *(jnp.concatenate([tokens] * copies), labels, jnp.concatenate([known] * copies)),
                method="contexts",
            )
            drawn, log_p = draw_places(
                self.model, {"params": params}, context, folded(now, 0), sampling, scale
            )
            noise = jax.vmap(lambda key: jax.random.gumbel(key, log_p.shape[1:]))(folded(now, 1))
            sure = log_p + sampling.choice_noise * (1 - (number + 1) / steps) * noise
            left = still_masked((~known).sum(-1), first, number, steps)
            kept = ~known & ~lowest(jnp.where(known, jnp.inf, sure), left)
            return (jnp.where(kept[..., None], drawn, tokens), known | kept), kept

        scales = guidance_scales(
            sampling.guidance, steps, sampling.guidance_schedule, sampling.guidance_power
        )
        (tokens, _), kept = jax.lax.scan(step, (tokens, known), (jnp.arange(steps), scales))
        return tokens, kept
