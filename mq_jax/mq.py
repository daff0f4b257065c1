"""Meta-Quantization (Qin & Zhang, ICML 2025), Algorithm 1, and the joint step beside it.

    L(theta, phi; x) = rec(x, D_theta(z_hat)) + lambda_q * mean((z - z_q)^2)

    inner:  theta' = theta + U(grad_theta L(theta, phi; x_inner))
    outer:  phi    <- phi - opt( d/dphi L(theta'(phi), phi; x_outer) )

One formula serves both levels: which argument is differentiated says who learns.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mq_jax import bilevel
from mq_jax.objective import Objective
from mq_jax.quantize import code_counts, nearest_codeword
from mq_jax.state import Parts, TrainState

HYPERGRADIENTS = (*bilevel.KINDS, "joint")

# The estimator of each level: (inner, outer).
STRAIGHT_THROUGH = {
    "encoder": ("encoder", "encoder"),
    "encoder-and-codewords": ("encoder-and-codewords", "encoder-and-codewords"),
    "encoder-and-codewords-inside": ("encoder-and-codewords", "encoder"),
}

TrainStep = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    objective: Objective,
    optimizers: Parts,
    *,
    hypergradient: str,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
) -> TrainStep:
    """Algorithm 1: an inner step on theta, then an outer step on phi through it.

    Args:
      objective: L.
      optimizers: Optax transformations of the auto-encoder (inner) and the codebook (outer).
      hypergradient: one of bilevel.KINDS.
      straight_through: a key of STRAIGHT_THROUGH.
      pullback_optimizer: see bilevel.hypergradient.

    Returns:
      train_step(state, inner_batch, outer_batch) -> (state, metrics), pure; batches are
      f32[B, H, W, 3] in [-1, 1], metrics scalars by name and `inner/code_counts` i32[K].
    """
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]

    def train_step(state, inner_batch, outer_batch):
        theta, phi = state.params
        result = bilevel.hypergradient(
            _loss_on(inner_batch, objective, state.batch_stats, inner_kind),
            _loss_on(outer_batch, objective, state.batch_stats, outer_kind),
            optimizers.autoencoder,
            theta,
            state.opt_state.autoencoder,
            phi,
            kind=hypergradient,
            pullback_optimizer=pullback_optimizer,
        )
        gradient = jax.tree.map(jnp.add, result.direct, result.indirect)
        phi, phi_state = _update(optimizers.codebook, gradient, state.opt_state.codebook, phi)
        metrics = _two_level_metrics(objective, result, phi)
        params, opt_state = Parts(result.theta, phi), Parts(result.opt_state, phi_state)
        return _advance(state, params, opt_state, result.inner[1].batch_stats), metrics

    return train_step


def make_inner_step(objective: Objective, optimizers: Parts) -> TrainStep:
    """An inner step alone, for several inner updates to one outer update.

    A step of its own, not a branch inside train_step: XLA's CPU backend runs the convolutions
    of a conditional an order of magnitude slower.

    Args:
      objective: L.
      optimizers: Optax transformations of the auto-encoder and the codebook.

    Returns:
      inner_step(state, batch, _) -> (state, metrics), as make_train_step's, without the outer
      level's metrics; the codebook stays and the outer batch is not read.
    """

    def inner_step(state, batch, _):
        # The estimators differ in the gradient of phi alone.
        loss_on_batch = _loss_on(batch, objective, state.batch_stats, "encoder")
        (loss, outputs), gradient = jax.value_and_grad(loss_on_batch, has_aux=True)(*state.params)
        theta, theta_state = _update(
            optimizers.autoencoder,
            gradient,
            state.opt_state.autoencoder,
            state.params.autoencoder,
        )
        metrics = _inner_metrics(objective, loss, outputs, gradient)
        params = state.params._replace(autoencoder=theta)
        opt_state = state.opt_state._replace(autoencoder=theta_state)
        return _advance(state, params, opt_state, outputs.batch_stats), metrics

    return inner_step


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
        loss_on_batch = _loss_on(batch, objective, state.batch_stats, straight_through)
        (loss, outputs), gradients = jax.value_and_grad(
            loss_on_batch, argnums=(0, 1), has_aux=True
        )(*state.params)
        updated = map(_update, optimizers, gradients, state.opt_state, state.params)
        params, opt_state = (Parts(*part) for part in zip(*updated, strict=True))
        metrics = {
            **_inner_metrics(objective, loss, outputs, gradients[0]),
            "inner/codebook_gradient_norm": optax.tree.norm(gradients[1]),
        }
        return _advance(state, params, opt_state, outputs.batch_stats), metrics

    return train_step


def _loss_on(batch, objective, batch_stats, straight_through):
    """L on one batch, as a function of theta and phi alone."""

    def loss(theta, phi):
        return objective(theta, phi, batch_stats, batch, straight_through=straight_through)

    return loss


def _update(optimizer, gradient, opt_state, params):
    """One Optax update: new parameters and new optimizer state."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _advance(state, params, opt_state, batch_stats):
    """The state one inner update later."""
    return state.replace(
        step=state.step + 1, params=params, opt_state=opt_state, batch_stats=batch_stats
    )


def _two_level_metrics(objective, result, phi):
    """What a step of both levels reports; phi is the codebook after it."""
    direct, indirect = optax.tree.norm(result.direct), optax.tree.norm(result.indirect)
    product = optax.tree.vdot(result.direct, result.indirect)
    metrics = {
        **_inner_metrics(objective, *result.inner, result.inner_gradient),
        **_loss_metrics("outer", *result.outer),
        "outer/direct_norm": direct,
        "outer/indirect_norm": indirect,
        # 0, not 0/0, where there is no indirect part.
        "outer/direct_indirect_cosine": product / jnp.maximum(direct * indirect, 1e-30),
        "outer/code_flip_rate": _flip_rate(objective, result.outer[1], phi),
        "outer/updates": jnp.ones(()),
    }
    if result.probes is not None:
        plus, minus = result.probes
        metrics["outer/probe_flip_rate"] = jnp.mean(plus.indices != minus.indices)
    return metrics


def _inner_metrics(objective, loss, outputs, gradient):
    """What the inner level, or the joint step, reports."""
    return {
        **_loss_metrics("inner", loss, outputs),
        "inner/code_counts": code_counts(outputs.indices, objective.codebook.size),
        "inner/gradient_norm": optax.tree.norm(gradient),
    }


def _loss_metrics(level, loss, outputs):
    """L and its two terms."""
    return {
        f"{level}/loss": loss,
        f"{level}/reconstruction": outputs.reconstruction,
        f"{level}/quantization": outputs.quantization,
    }


def _flip_rate(objective, outputs, phi):
    """The share of the outer batch's codes that the new codebook reassigns, z being fixed."""
    # One image in eight is sample enough, and the third lookup of a step costs next to nothing.
    z, indices = outputs.z[::8], outputs.indices[::8]
    moved = nearest_codeword(z, objective.codewords(phi), chunk=objective.lookup_chunk)
    return jnp.mean(moved != indices)
