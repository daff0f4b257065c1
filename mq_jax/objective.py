"""The one objective of both levels, and of evaluation.

L(theta, phi; x) = rec(x, D_theta(z_hat)) + lambda_q * mean((z - z_q)^2)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from mq_jax.quantize import quantize


class Outputs(NamedTuple):
    """What one pass through the auto-encoder leaves behind.

    Attributes:
      reconstruction: f32[], the first term of L.
      quantization: f32[], the second term without its weight.
      images: f32[B, H, W, 3], x_hat, nominally in [-1, 1], not clipped.
      z: f32[B, h, w, D].
      indices: i32[B, h, w] in [0, K).
      batch_stats: BatchNorm's running statistics after the pass.
    """

    reconstruction: jax.Array
    quantization: jax.Array
    images: jax.Array
    z: jax.Array
    indices: jax.Array
    batch_stats: Any


class Objective(NamedTuple):
    """L(theta, phi; x), and the pieces it is made of.

    Attributes:
      autoencoder: module with `encode` and `decode`.
      codebook: module whose call returns f32[K, D].
      reconstruction_loss: (images, reconstructions) -> f32[].
      quantization_weight: lambda_q, on both sides of the term: unequal weights for z and z_q
        have no single term whose mixed derivative is right, and are not offered.
      lookup_chunk: codewords compared at a time, 0 for all.
    """

    autoencoder: nn.Module
    codebook: nn.Module
    reconstruction_loss: Callable[[jax.Array, jax.Array], jax.Array]
    quantization_weight: float
    lookup_chunk: int = 0

    def codewords(self, phi: Any) -> jax.Array:
        """The codebook C(phi), f32[K, D]."""
        return self.codebook.apply({"params": phi})

    def __call__(
        self,
        theta: Any,
        phi: Any,
        batch_stats: Any,
        images: jax.Array,
        *,
        straight_through: str,
        train: bool = True,
    ) -> tuple[jax.Array, Outputs]:
        """Evaluates L.

        Args:
          theta: parameters of the auto-encoder.
          phi: parameters of the codebook.
          batch_stats: BatchNorm's running statistics.
          images: f32[B, H, W, 3] in [-1, 1].
          straight_through: one of quantize.STRAIGHT_THROUGH.
          train: whether BatchNorm uses the batch's statistics or the running ones.

        Returns:
          (f32[], Outputs).
        """

        def run(method, argument, batch_stats):
            variables = {"params": theta, "batch_stats": batch_stats}
            out, updated = self.autoencoder.apply(
                variables, argument, train=train, method=method, mutable=["batch_stats"]
            )
            return out, updated["batch_stats"]

        z, batch_stats = run("encode", images, batch_stats)
        q = quantize(
            z, self.codewords(phi), straight_through=straight_through, chunk=self.lookup_chunk
        )
        x_hat, batch_stats = run("decode", q.z_hat, batch_stats)
        reconstruction = self.reconstruction_loss(images, x_hat)
        loss = reconstruction + self.quantization_weight * q.loss
        return loss, Outputs(reconstruction, q.loss, x_hat, z, q.indices, batch_stats)
