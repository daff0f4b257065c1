"""Meta-Quantization (Qin & Zhang, ICML 2025), Algorithm 1, and the joint step beside it.

    L(theta, phi; x) = task(x, D_theta(z_hat)) + lambda_q * mean((z - z_q)^2) [+ adversarial]

    inner:  theta' = theta + U(grad_theta L(theta, phi; x_inner))
    outer:  phi    <- phi - opt( d/dphi L(theta'(phi), phi; x_outer) )

One formula serves both levels: which argument is differentiated says who learns. A
discriminator, where there is one, then learns from the inner pass.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from mq_jax.algorithm import bilevel
from mq_jax.algorithm.accumulation import in_parts
from mq_jax.algorithm.implicit import Implicit
from mq_jax.algorithm.problem import (
    Problem,
    advance,
    advance_both_levels,
    cut,
    level_keys,
    make_loss,
)
from mq_jax.algorithm.state import TrainState
from mq_jax.algorithm.step_metrics import inner_metrics

HYPERGRADIENTS = (*bilevel.KINDS, "pipelined", "joint")

# The estimator of each level: (inner, outer).
STRAIGHT_THROUGH = {
    "encoder": ("encoder", "encoder"),
    "encoder-and-codewords": ("encoder-and-codewords", "encoder-and-codewords"),
    "encoder-and-codewords-inside": ("encoder-and-codewords", "encoder"),
    "rotation": ("rotation", "rotation"),
    "diveq": ("diveq", "diveq"),
}

TrainStep = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def make_bilevel(
    problem: Problem,
    *,
    hypergradient: str,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
    implicit: Implicit | None = None,
) -> Callable[..., bilevel.Bilevel]:
    """The inner step and the outer gradient of Algorithm 1, before any state moves by them.

    Args:
      problem: L and its optimizers.
      hypergradient: one of bilevel.KINDS.
      straight_through: a key of STRAIGHT_THROUGH.
      pullback_optimizer: see bilevel.hypergradient.
      implicit: see bilevel.hypergradient.

    Returns:
      at(state, inner_batch, outer_batch, frozen=()) -> Bilevel, as make_train_step's step.
    """
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]

    def at(state, inner_batch, outer_batch, frozen=()):
        theta, phi, _ = state.params
        inner_key, outer_key = level_keys(state)
        batches = (
            cut(inner_batch, inner_key, problem.parts),
            cut(outer_batch, outer_key, problem.parts),
        )
        return bilevel.hypergradient(
            make_loss(problem, state, frozen, inner_kind),
            make_loss(problem, state, frozen, outer_kind),
            problem.optimizers.autoencoder,
            theta,
            state.opt_state.autoencoder,
            phi,
            batches,
            kind=hypergradient,
            pullback_optimizer=pullback_optimizer,
            implicit=implicit,
        )

    return at


def make_train_step(
    problem: Problem,
    *,
    hypergradient: str,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
    implicit: Implicit | None = None,
) -> TrainStep:
    """Algorithm 1: an inner step on theta, then an outer step on phi through it.

    Args:
      problem: L and its optimizers.
      hypergradient: as make_bilevel's.
      straight_through: likewise.
      pullback_optimizer: likewise.
      implicit: likewise.

    Returns:
      train_step(state, inner_batch, outer_batch, frozen=()) -> (state, metrics), pure; batches
      are f32[B, H, W, 3] in [-1, 1], `frozen` the weights of LPIPS where L has it, metrics
      scalars by name and `inner/code_counts` i32[K].
    """
    at = make_bilevel(
        problem,
        hypergradient=hypergradient,
        straight_through=straight_through,
        pullback_optimizer=pullback_optimizer,
        implicit=implicit,
    )

    def train_step(state, inner_batch, outer_batch, frozen=()):
        result = at(state, inner_batch, outer_batch, frozen)
        images = in_parts(inner_batch, problem.parts)
        return advance_both_levels(problem, state, result, images)

    return train_step


def make_inner_step(problem: Problem, *, straight_through: str = "encoder") -> TrainStep:
    """An inner step alone, for several inner updates to one outer update.

    A step of its own, not a branch inside train_step: XLA's CPU backend runs the convolutions
    of a conditional an order of magnitude slower.

    Args:
      problem: L and its optimizers.
      straight_through: a key of STRAIGHT_THROUGH.

    Returns:
      inner_step(state, batch, _, frozen=()) -> (state, metrics), as make_train_step's, without
      the outer level's metrics; the codebook stays and the outer batch is not read.
    """
    kind, _ = STRAIGHT_THROUGH[straight_through]

    def inner_step(state, batch, _, frozen=()):
        return inner_update(problem, state, batch, frozen, kind)[:2]

    return inner_step


def inner_update(
    problem: Problem, state: TrainState, images: jax.Array, frozen: Any, straight_through: str
) -> tuple[TrainState, dict[str, jax.Array], Any]:
    """The inner level alone.

    Args:
      problem: L and its optimizers.
      state: before it.
      images: f32[B, H, W, 3] in [-1, 1].
      frozen: the weights of LPIPS where L has it.
      straight_through: one of quantizers.STRAIGHT_THROUGH.

    Returns:
      (the state after it, metrics, the gradient over theta).
    """
    theta, phi, _ = state.params
    batch = cut(images, level_keys(state)[0], problem.parts)
    loss = make_loss(problem, state, frozen, straight_through)
    (value, outputs), gradient = bilevel.value_and_gradient(loss, theta, phi, batch)
    theta, theta_state = bilevel.take_step(
        problem.optimizers.autoencoder, gradient, state.opt_state.autoencoder, theta
    )
    params = state.params._replace(autoencoder=theta)
    opt_state = state.opt_state._replace(autoencoder=theta_state)
    state, disc_metrics = advance(problem, state, params, opt_state, batch.images, outputs)
    metrics = inner_metrics(problem.objective, value, outputs, gradient) | disc_metrics
    return state, metrics, gradient


def make_joint_step(problem: Problem, *, straight_through: str) -> TrainStep:
    """The single-level baseline: one backward pass for theta and phi, on the same batch.

    Args:
      problem: L and its optimizers.
      straight_through: one of quantizers.STRAIGHT_THROUGH.

    Returns:
      train_step(state, batch, _, frozen=()) -> (state, metrics), as make_train_step's; the
      outer batch is not read.
    """

    def train_step(state, batch, _, frozen=()):
        batch, levels = cut(batch, level_keys(state)[0], problem.parts), state.params[:2]
        loss = make_loss(problem, state, frozen, straight_through)
        (value, outputs), gradients = bilevel.value_and_gradient(
            loss, *levels, batch, argnums=(0, 1)
        )
        (theta, theta_state), (phi, phi_state) = map(
            bilevel.take_step, problem.optimizers[:2], gradients, state.opt_state[:2], levels
        )
        params = state.params._replace(autoencoder=theta, codebook=phi)
        opt_state = state.opt_state._replace(autoencoder=theta_state, codebook=phi_state)
        state, disc_metrics = advance(problem, state, params, opt_state, batch.images, outputs)
        return state, {
            **inner_metrics(problem.objective, value, outputs, gradients[0]),
            "inner/codebook_gradient_norm": optax.tree.norm(gradients[1]),
            **disc_metrics,
        }

    return train_step
