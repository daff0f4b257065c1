"""The one objective of both levels, and of evaluation.

L(theta, phi; x) = task(x, x_hat) + lambda_q * quantization + w * a * adversarial(x_hat)

with x_hat = D_theta(z_hat), task = rec + lambda_p * LPIPS, and for plain vector quantization
quantization = mean((z - z_q)^2). MQVAE is L without LPIPS and without the adversarial term; MQGAN
has both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mq_jax.algorithm.losses import adaptive_weight
from mq_jax.algorithm.state import Model
from mq_jax.quantizers.quantizer import Quantizer


class Outputs(NamedTuple):
    """What one pass through the auto-encoder leaves behind.

    Attributes:
      terms: f32[] by name, what L is made of: `reconstruction` and `quantization` (the weights
        of the sum left out), and where L has them the quantizer's own, `perceptual`,
        `adversarial`, `adaptive_weight` (a) and `adaptive_clipped` (1 where a counted and was at
        its cap).
      images: f32[B, H, W, 3], x_hat, nominally in [-1, 1], not clipped.
      z: f32[B, h, w, channels].
      indices: i32[B, h, w] in [0, K), with an axis of J where a position has J codes.
      batch_stats: BatchNorm's running statistics after the pass.
      statistics: of the quantizer, what its `advance` takes.
    """

    terms: dict[str, jax.Array]
    images: jax.Array
    z: jax.Array
    indices: jax.Array
    batch_stats: Any
    statistics: Any = ()


class Perceptual(NamedTuple):
    """LPIPS as a term of L.

    Attributes:
      distance: (weights, images, reconstructions) -> f32[B].
      weight: lambda_p.
    """

    distance: Callable[[Any, jax.Array, jax.Array], jax.Array]
    weight: float


class Adversarial(NamedTuple):
    """The discriminator as a term of L.

    Attributes:
      discriminator: module, images -> logits.
      loss: logits on reconstructions -> f32[].
      adaptive: whether a balances the gradients of task and adversarial, else a = 1.
      cap: largest a.
    """

    discriminator: nn.Module
    loss: Callable[[jax.Array], jax.Array]
    adaptive: bool
    cap: float


class Opponent(NamedTuple):
    """The discriminator as L meets it in a step.

    Attributes:
      psi: its parameters.
      weight: f32[], w.
    """

    psi: Any
    weight: jax.Array


class Objective(NamedTuple):
    """L(theta, phi; x), and the pieces it is made of.

    Attributes:
      autoencoder: module with `encode`, `features` and `pixels`.
      quantizer: what turns z into codes; its parameters are phi.
      reconstruction_loss: (images, reconstructions) -> f32[].
      quantization_weight: lambda_q.
      perceptual: None without LPIPS.
      adversarial: None without a discriminator.
    """

    autoencoder: nn.Module
    quantizer: Quantizer
    reconstruction_loss: Callable[[jax.Array, jax.Array], jax.Array]
    quantization_weight: float
    perceptual: Perceptual | None = None
    adversarial: Adversarial | None = None

    def codewords(self, model: Model) -> jax.Array:
        """What each code of a model stands for, f32[codes, D]."""
        return self.quantizer.codewords(self.quantizer.fold(model.codebook, model.quantizer))

    def __call__(
        self,
        theta: Any,
        phi: Any,
        batch_stats: Any,
        images: jax.Array,
        *,
        straight_through: str,
        quantizer_state: Any = (),
        train: bool = True,
        rng: jax.Array | None = None,
        frozen: Any = (),
        opponent: Opponent | None = None,
    ) -> tuple[jax.Array, Outputs]:
        """Evaluates L.

        Args:
          theta: parameters of the auto-encoder.
          phi: parameters of the quantizer.
          batch_stats: BatchNorm's running statistics.
          images: f32[B, H, W, 3] in [-1, 1].
          straight_through: one of quantizers.STRAIGHT_THROUGH.
          quantizer_state: what no gradient moves of the quantizer.
          train: whether BatchNorm uses the batch's statistics or the running ones, and whether
            the decoder gets z_hat or what the codes decode to, which passes no gradient to z.
          rng: key of what is drawn in training, by the auto-encoder (Flax's `dropout`) and by
            the quantizer; None: nothing is drawn.
          frozen: the weights of LPIPS; read only where L has it.
          opponent: the discriminator; None leaves its term out.

        Returns:
          (f32[], Outputs).
        """

        # Flax folds each module's path in, so that both halves may share the key.
        settings = {"train": train, "rngs": {} if rng is None else {"dropout": rng}}
        z, batch_stats = self._half("encode", theta, batch_stats, images, settings)
        # By this name a plan tells what a quantizer takes beside its lookup and hyper-net.
        with jax.named_scope("quantizer"):
            q = self.quantizer(
                *(phi, quantizer_state, z),
                straight_through=straight_through,
                train=train,
                rng=None if rng is None else jax.random.fold_in(rng, 0),
            )
        features, batch_stats = self._half("features", theta, batch_stats, q.z_hat, settings)
        x_hat = self._last_layer(theta["decoder"]["head"], features)
        task, terms = self._task(images, frozen, x_hat)
        loss = task + self.quantization_weight * q.loss
        terms |= {"quantization": q.loss, **q.terms}
        if self.adversarial is not None and opponent is not None:
            task_loss = lambda x_hat: self._task(images, frozen, x_hat)[0]  # noqa: E731
            head = theta["decoder"]["head"]
            term, its_terms = self._adversarial(head, opponent, task_loss, features, x_hat)
            loss, terms = loss + term, terms | its_terms
        return loss, Outputs(terms, x_hat, z, q.indices, batch_stats, q.statistics)

    def _half(self, method, theta, batch_stats, argument, settings):
        """The encoder, or the decoder up to its last layer, and BatchNorm's statistics after it."""
        variables = {"params": theta, "batch_stats": batch_stats}
        out, updated = self.autoencoder.apply(
            variables, argument, method=method, mutable=["batch_stats"], **settings
        )
        return out, updated.get("batch_stats", batch_stats)

    def _last_layer(self, head, features):
        """The decoder's last layer, which needs its own parameters alone."""
        theta = {"decoder": {"head": head}}
        return self.autoencoder.apply({"params": theta}, features, method="pixels")

    def _task(self, images, frozen, x_hat):
        """rec + lambda_p * LPIPS, and the two by name."""
        task = reconstruction = self.reconstruction_loss(images, x_hat)
        terms = {"reconstruction": reconstruction}
        if self.perceptual is not None:
            distance = jnp.mean(self.perceptual.distance(frozen, images, x_hat))
            task += self.perceptual.weight * distance
            terms["perceptual"] = distance
        return task, terms

    def _adversarial(self, head, opponent, task_loss, features, x_hat):
        """w * a * adversarial(x_hat), and its parts by name."""
        _, loss, adaptive, cap = self.adversarial

        def adversarial_loss(x_hat):
            return loss(self.adversarial.discriminator.apply({"params": opponent.psi}, x_hat))

        value = adversarial_loss(x_hat)
        if not adaptive:
            return opponent.weight * value, {"adversarial": value}
        a = adaptive_weight(task_loss, adversarial_loss, self._last_layer, head, features)
        clipped = jnp.minimum(a, cap)
        terms = {
            "adversarial": value,
            "adaptive_weight": clipped,
            # Only where it counts: before the term sets in, a is a number without effect.
            "adaptive_clipped": ((a > cap) & (opponent.weight > 0)).astype(value.dtype),
        }
        return opponent.weight * clipped * value, terms
