"""Meta-Quantization (Qin & Zhang, ICML 2025), Algorithm 1, and the joint step beside it.

    L(theta, phi; x) = rec(x, D_theta(z_hat)) + lambda_q * mean((z - z_q)^2)

    inner:  theta' = theta + U(grad_theta L(theta, phi; x_inner))
    outer:  phi    <- phi - opt( d/dphi L(theta'(phi), phi; x_outer) )

One formula serves both levels: which argument is differentiated says who learns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mq_jax import bilevel
from mq_jax.quantize import code_counts, nearest_codeword, quantize
from mq_jax.state import Parts, TrainState

HYPERGRADIENTS = (*bilevel.KINDS, "joint")

# The estimator of each level: (inner, outer).
STRAIGHT_THROUGH = {
    "encoder": ("encoder", "encoder"),
    "encoder-and-codewords": ("encoder-and-codewords", "encoder-and-codewords"),
    "encoder-and-codewords-inside": ("encoder-and-codewords", "encoder"),
}

TrainStep = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


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


def make_train_step(
    objective: Objective,
    optimizers: Parts,
    *,
    hypergradient: str,
    straight_through: str,
    inner_updates: int = 1,
    pullback_optimizer: optax.GradientTransformation | None = None,
) -> TrainStep:
    """Algorithm 1: an inner step on theta, then an outer step on phi through it.

    Args:
      objective: L.
      optimizers: Optax transformations of the auto-encoder (inner) and the codebook (outer).
      hypergradient: one of bilevel.KINDS.
      straight_through: a key of STRAIGHT_THROUGH.
      inner_updates: inner updates to one outer update; the hyper-gradient goes through the
        last of them.
      pullback_optimizer: see bilevel.hypergradient.

    Returns:
      train_step(state, inner_batch, outer_batch) -> (state, metrics), pure; batches are
      f32[B, H, W, 3] in [-1, 1], metrics scalars by name and `inner/code_counts` i32[K]. The
      outer batch is read only at every `inner_updates`-th step; at others the metrics'
      `outer/updates` and outer values are 0.
    """
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]

    def both_levels(state, inner_batch, outer_batch):
        theta, phi = state.params

        def inner_loss(theta, phi):
            return objective(
                theta, phi, state.batch_stats, inner_batch, straight_through=inner_kind
            )

        def outer_loss(theta, phi):
            return objective(
                theta, phi, state.batch_stats, outer_batch, straight_through=outer_kind
            )

        result = bilevel.hypergradient(
            inner_loss,
            outer_loss,
            optimizers.autoencoder,
            theta,
            state.opt_state.autoencoder,
            phi,
            kind=hypergradient,
            pullback_optimizer=pullback_optimizer,
        )
        gradient = jax.tree.map(jnp.add, result.direct, result.indirect)
        updates, phi_state = optimizers.codebook.update(gradient, state.opt_state.codebook, phi)
        new_phi = optax.apply_updates(phi, updates)
        metrics = {
            **_pass_metrics("inner", *result.inner),
            **_pass_metrics("outer", *result.outer),
            **_gradient_metrics(result),
            "inner/code_counts": code_counts(result.inner[1].indices, objective.codebook.size),
            "outer/code_flip_rate": _flip_rate(objective, result.outer[1], new_phi),
            "outer/updates": jnp.ones(()),
        }
        state = _advance(
            state,
            Parts(result.theta, new_phi),
            Parts(result.opt_state, phi_state),
            result.inner[1].batch_stats,
        )
        return state, metrics

    if inner_updates == 1:
        return both_levels

    def inner_level(state, inner_batch, outer_batch):
        theta, phi = state.params
        (loss, outputs), gradient = jax.value_and_grad(objective, has_aux=True)(
            theta, phi, state.batch_stats, inner_batch, straight_through=inner_kind
        )
        updates, theta_state = optimizers.autoencoder.update(
            gradient, state.opt_state.autoencoder, theta
        )
        _, like = jax.eval_shape(both_levels, state, inner_batch, outer_batch)
        metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        metrics |= _pass_metrics("inner", loss, outputs)
        metrics["inner/gradient_norm"] = optax.tree.norm(gradient)
        metrics["inner/code_counts"] = code_counts(outputs.indices, objective.codebook.size)
        state = _advance(
            state,
            state.params._replace(autoencoder=optax.apply_updates(theta, updates)),
            state.opt_state._replace(autoencoder=theta_state),
            outputs.batch_stats,
        )
        return state, metrics

    def train_step(state, inner_batch, outer_batch):
        due = outer_update_due(state.step, inner_updates)
        return jax.lax.cond(due, both_levels, inner_level, state, inner_batch, outer_batch)

    return train_step


def make_joint_step(objective: Objective, optimizers: Parts, *, straight_through: str) -> TrainStep:
    """The single-level baseline: one backward pass for theta and phi, on the same batch.

    Args:
      objective: L.
      optimizers: Optax transformations of the auto-encoder and the codebook.
      straight_through: one of quantize.STRAIGHT_THROUGH.

    Returns:
      train_step(state, batch, _) -> (state, metrics), as make_train_step's; the outer batch is
      not read.
    """

    def train_step(state, batch, _):
        (loss, outputs), gradients = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(
            *state.params, state.batch_stats, batch, straight_through=straight_through
        )
        steps = [
            optimizer.update(gradient, opt_state, params)
            for optimizer, gradient, opt_state, params in zip(
                optimizers, gradients, state.opt_state, state.params, strict=True
            )
        ]
        params = [optax.apply_updates(p, u) for p, (u, _) in zip(state.params, steps, strict=True)]
        metrics = {
            **_pass_metrics("inner", loss, outputs),
            "inner/code_counts": code_counts(outputs.indices, objective.codebook.size),
            "inner/gradient_norm": optax.tree.norm(gradients[0]),
            "inner/codebook_gradient_norm": optax.tree.norm(gradients[1]),
        }
        opt_state = Parts(*[opt_state for _, opt_state in steps])
        return _advance(state, Parts(*params), opt_state, outputs.batch_stats), metrics

    return train_step


def outer_update_due(step: Any, inner_updates: int) -> Any:
    """Whether the step of this number (from 0) also updates the codebook.

    Args:
      step: int or i32[], inner updates taken before it.
      inner_updates: inner updates to one outer update.

    Returns:
      bool or bool[].
    """
    return (step + 1) % inner_updates == 0


def _advance(state, params, opt_state, batch_stats):
    """The state one inner update later."""
    return state.replace(
        step=state.step + 1, params=params, opt_state=opt_state, batch_stats=batch_stats
    )


def _pass_metrics(level, loss, outputs):
    """The losses of one pass."""
    return {
        f"{level}/loss": loss,
        f"{level}/reconstruction": outputs.reconstruction,
        f"{level}/quantization": outputs.quantization,
    }


def _gradient_metrics(result: bilevel.Bilevel):
    """Norms of the gradients, and the angle between the two parts of the outer one."""
    direct, indirect = optax.tree.norm(result.direct), optax.tree.norm(result.indirect)
    product = optax.tree.vdot(result.direct, result.indirect)
    metrics = {
        "inner/gradient_norm": optax.tree.norm(result.inner_gradient),
        "outer/direct_norm": direct,
        "outer/indirect_norm": indirect,
        # 0, not 0/0, where there is no indirect part.
        "outer/direct_indirect_cosine": product / jnp.maximum(direct * indirect, 1e-30),
    }
    if result.probes is not None:
        plus, minus = result.probes
        metrics["outer/probe_flip_rate"] = jnp.mean(plus.indices != minus.indices)
    return metrics


def _flip_rate(objective, outputs, phi):
    """The share of the outer batch's codes that the new codebook reassigns, z being fixed."""
    # One image in eight is sample enough, and the third lookup of a step costs next to nothing.
    z, indices = outputs.z[::8], outputs.indices[::8]
    moved = nearest_codeword(z, objective.codewords(phi), chunk=objective.lookup_chunk)
    return jnp.mean(moved != indices)
