"""A decoder as a prior: its loss, and one token after another with a cache."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mq_jax.generation.decoder import Decoder
from mq_jax.generation.guidance import drop_labels, guidance_scales
from mq_jax.generation.losses import Prediction, cross_entropy
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
class Autoregressive:
    """The contract of prior.py, by a decoder.

    Attributes:
      model: the decoder.
      class_dropout: probability that a training image has no class.
    """

    model: Decoder
    class_dropout: float = 0.1

    @property
    def space(self) -> TokenSpace:
        """Of the tokens."""
        return self.model.space

    def init(self, rng: jax.Array) -> Any:
        """As Prior.init."""
        tokens = jnp.zeros((1, self.space.places, self.space.levels), jnp.int32)
        labels = jnp.zeros(1, jnp.int32)
        return self.model.init(rng, tokens, labels)["params"]

    def loss(
        self,
        params: Any,
        tokens: jax.Array,
        labels: jax.Array | None,
        rng: jax.Array,
        *,
        train: bool,
    ) -> Prediction:
        """As Prior.loss: the mean of -ln p of all tokens, each given those before it."""
        self.space.check(tokens, labels)
        label_rng, dropout_rng = jax.random.split(rng)
        if train:
            labels = drop_labels(labels, self.space.null, self.class_dropout, label_rng)
        logits = self.model.apply(
            {"params": params}, tokens, labels, train=train, rngs={"dropout": dropout_rng}
        )
        nats = cross_entropy(logits, tokens)
        return Prediction(nats.mean(), nats.sum(), jnp.float32(nats.size))

    def likelihood(
        self, params: Any, tokens: jax.Array, labels: jax.Array | None, rng: jax.Array
    ) -> Prediction:
        """As Prior.likelihood, exactly; the key is not used."""
        return self.loss(params, tokens, labels, rng, train=False)

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
        """As Prior.sample, row by row: a known place is told to the places after it alone."""
        labels, copies = conditions(self.space, images, labels, sampling)
        given, known = completion(self.space, images, given, known)
        variables, batch = {"params": params}, copies * len(images)
        read = jnp.concatenate([given[:, :front]] * copies)
        cache = self.model.apply(variables, batch, method="cache")
        x, cache = self.model.apply(variables, labels, read, cache, method="prefill")
        keys = image_keys(rng, images)

        def step(carry, here):
            x, cache = carry
            place, scale, given, known = here
            context, cache = self.model.apply(variables, x, place, cache, method="step")
            drawn, _ = draw_places(
                self.model, variables, context, folded(keys, place), sampling, scale
            )
            tokens = jnp.where(known[:, None, None], given[:, None], drawn)
            x = self.model.apply(variables, jnp.concatenate([tokens] * copies), method="embed")
            return (x, cache), tokens[:, 0]

        scales = guidance_scales(
            sampling.guidance,
            self.space.places,
            sampling.guidance_schedule,
            sampling.guidance_power,
        )
        here = jnp.arange(self.space.places), scales, given.swapaxes(0, 1), known.T
        _, tokens = jax.lax.scan(step, (x, cache), jax.tree.map(lambda leaf: leaf[front:], here))
        return jnp.concatenate([given[:, :front], tokens.swapaxes(0, 1)], axis=1)
