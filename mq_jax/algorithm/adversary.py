"""The discriminator's own training, beside the two levels: it sees the inner step's pictures.

    psi <- psi - opt( d/dpsi [ loss(D(x), D(x_hat)) + r1/2 * R1 + lecam * LeCAM ] )

It enters in two stages, each a share of the run: from `train_from` on it learns, from
`start` on its verdict reaches the generator, with a weight that may rise over a ramp. Both
are numbers inside the one compiled step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mq_jax.algorithm import losses
from mq_jax.algorithm.accumulation import mean_over_parts
from mq_jax.algorithm.bilevel import take_step
from mq_jax.algorithm.objective import Opponent
from mq_jax.algorithm.state import TrainState

# Decay of LeCAM's anchors, as its paper has it.
ANCHOR_DECAY = 0.99


class Adversary(NamedTuple):
    """How a discriminator is trained, and how much its verdict weighs.

    Attributes:
      discriminator: module, images f32[B, H, W, 3] -> logits f32[B, h, w, 1].
      loss: (logits on images, logits on reconstructions) -> f32[].
      weight: step -> w, the weight of the adversarial term in L.
      train_from: the first step, counted from 0, at which it learns.
      r1: factor of the gradient penalty (halved, as in its paper), 0 for none.
      lecam: factor of LeCAM's term, 0 for none.
    """

    discriminator: nn.Module
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    weight: Callable[[jax.Array], jax.Array]
    train_from: int
    r1: float = 0.0
    lecam: float = 0.0

    def opponent(self, state: TrainState) -> Opponent:
        """The discriminator as L meets it in this step."""
        return Opponent(state.params.discriminator, self.weight(state.step))

    def update(
        self,
        optimizer: optax.GradientTransformation,
        state: TrainState,
        images: jax.Array,
        reconstructions: jax.Array,
    ) -> tuple[Any, Any, jax.Array, dict[str, jax.Array]]:
        """One step of the discriminator.

        Args:
          optimizer: of psi.
          state: before the step.
          images: f32[parts, b, H, W, 3] in [-1, 1], the inner batch.
          reconstructions: f32[parts, b, H, W, 3], of the inner pass.

        Returns:
          (psi, its optimizer's state, anchors, metrics); before `train_from` the first three
          are as they were.
        """
        psi, opt_state = state.params.discriminator, state.opt_state.discriminator

        def on_part(part):
            loss = lambda psi: self._loss(psi, state.anchors, *part)  # noqa: E731
            (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(psi)
            return (value, aux, gradient), ()

        (value, aux, gradient), _ = mean_over_parts(on_part, (images, reconstructions))
        new_psi, new_opt_state = take_step(optimizer, gradient, opt_state, psi)
        anchors = ANCHOR_DECAY * state.anchors + (1 - ANCHOR_DECAY) * aux.pop("logits")
        trains = state.step >= self.train_from
        # The optimizer stands still too, so that its schedule begins when the training does.
        psi, opt_state, anchors = jax.tree.map(
            lambda new, old: jnp.where(trains, new, old),
            (new_psi, new_opt_state, anchors),
            (psi, opt_state, state.anchors),
        )
        metrics = {
            "disc/loss": value,
            "disc/gradient_norm": optax.tree.norm(gradient),
            "disc/weight": self.weight(state.step),
            "disc/trains": trains.astype(value.dtype),
            **{f"disc/{name}": term for name, term in aux.items()},
        }
        return psi, opt_state, anchors, metrics

    def _loss(self, psi, anchors, images, reconstructions):
        """The discriminator's loss and what tells of its health."""
        judge = lambda x: self.discriminator.apply({"params": psi}, x)  # noqa: E731
        real, fake = judge(images), judge(reconstructions)
        value = self.loss(real, fake)
        aux = {
            "logits": jnp.stack([jnp.mean(real), jnp.mean(fake)]),
            "accuracy_real": jnp.mean(real > 0),
            "accuracy_fake": jnp.mean(fake < 0),
        }
        if self.r1:
            penalty = losses.gradient_penalty(judge, images)
            value, aux["gradient_penalty"] = value + self.r1 / 2 * penalty, penalty
        if self.lecam:
            value += self.lecam * losses.lecam_loss(real, fake, anchors)
        return value, aux


def make_adversarial_weight(
    weight: float, *, start: int, ramp: int
) -> Callable[[jax.Array], jax.Array]:
    """w: 0 before `start`, then a linear ramp to `weight`.

    Args:
      weight: w at the end.
      start: the first step, counted from 0, with a positive w.
      ramp: steps over which w rises; 0 has the whole weight at once.

    Returns:
      step i32[] -> f32[].
    """

    def schedule(step):
        return weight * jnp.clip((step - start + 1) / max(ramp, 1), 0, 1)

    return schedule
