"""The pipelined step: the outer batch of one step is the inner batch of the next.

    v        = grad_theta L(theta, phi; x)                  the inner gradient of this step
    direct   = grad_phi   L(theta, phi; x)                  of the same backward pass
    indirect = v^T (dU/dg) (d/dphi) grad_theta L(theta_0, phi_0; x_0),  theta = theta_0 + U(g_0)
    theta'   = theta + U(v),    phi' = phi - opt(direct + indirect)

theta_0, phi_0, x_0, g_0 and U's state are those of the step before, which the state keeps. So the
batch x judges the inner step that has led to theta, and then takes one itself. See
docs/algorithm.md, section 2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mq_jax.algorithm import bilevel
from mq_jax.algorithm.mq import STRAIGHT_THROUGH, TrainStep
from mq_jax.algorithm.problem import Problem, advance_both_levels, cut, level_keys, make_loss
from mq_jax.algorithm.state import Past, TrainState

PyTree = Any


class InnerStep(NamedTuple):
    """An inner step that was taken: what the derivative through it needs.

    Attributes:
      loss: (theta, phi, part) -> (scalar, aux), that it descended.
      theta: inner parameters before it.
      opt_state: of the inner optimizer before it.
      phi: outer parameters then.
      gradient: grad_theta of the loss there.
      batch: leaves [parts, ...].
    """

    loss: bilevel.Loss
    theta: PyTree
    opt_state: PyTree
    phi: PyTree
    gradient: PyTree
    batch: PyTree


def hypergradient(
    loss: bilevel.Loss,
    optimizer: optax.GradientTransformation,
    theta: PyTree,
    opt_state: PyTree,
    phi: PyTree,
    batch: PyTree,
    taken: InnerStep,
    *,
    pullback_optimizer: optax.GradientTransformation | None = None,
) -> bilevel.Bilevel:
    """One pass for the outer gradient through the inner step before and for the next inner step.

    Args:
      loss: (theta, phi, part) -> (scalar, aux), L; its gradient over theta serves both levels.
      optimizer: U, the inner Optax transformation.
      theta: inner parameters, to which `taken` has led.
      opt_state: of `optimizer` for theta.
      phi: outer parameters.
      batch: leaves [parts, ...].
      taken: the inner step before.
      pullback_optimizer: as bilevel.hypergradient's.

    Returns:
      A Bilevel, whose inner and outer pass are one.
    """
    outcome, (v, direct) = bilevel.value_and_gradient(loss, theta, phi, batch, argnums=(0, 1))

    def update(gradient):
        followed = pullback_optimizer or optimizer
        return bilevel.take_step(followed, gradient, taken.opt_state, taken.theta)[0]

    _, pullback = jax.vjp(update, taken.gradient)
    (u,) = pullback(v)
    indirect = bilevel.mixed_derivative(taken.loss, taken.theta, taken.phi, taken.batch, u)
    theta, opt_state = bilevel.take_step(optimizer, v, opt_state, theta)
    return bilevel.Bilevel(theta, opt_state, outcome, outcome, v, direct, indirect)


def make_pipelined_step(
    problem: Problem,
    *,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
) -> TrainStep:
    """A step of both levels on one batch, for little more than a joint one.

    At the first step there is none before, and the indirect part is zero.

    Args:
      problem: L and its optimizers.
      straight_through: a key of mq.STRAIGHT_THROUGH.
      pullback_optimizer: see bilevel.hypergradient.

    Returns:
      train_step(state, batch, _, frozen=()) -> (state, metrics), as mq.make_train_step's; the
      state has a Past, and the outer batch is not read.
    """
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]

    def train_step(state, images, _, frozen=()):
        theta, phi, _ = state.params
        batch = cut(images, level_keys(state)[0], problem.parts)
        result = hypergradient(
            # The estimators of the levels differ in the gradient of phi alone.
            make_loss(problem, state, frozen, outer_kind),
            problem.optimizers.autoencoder,
            theta,
            state.opt_state.autoencoder,
            phi,
            batch,
            _taken(problem, state, frozen, inner_kind),
            pullback_optimizer=pullback_optimizer,
        )
        exists = state.step > 0
        indirect = jax.tree.map(lambda leaf: jnp.where(exists, leaf, 0), result.indirect)
        after, metrics = advance_both_levels(
            problem, state, result._replace(indirect=indirect), batch.images
        )
        opt_state, gradient = state.opt_state.autoencoder, result.inner_gradient
        past = Past(state.params, opt_state, state.quantizer, gradient, images)
        return after.replace(past=past), metrics

    return train_step


def with_past(state: TrainState, images: jax.Array) -> TrainState:
    """A state before its first pipelined step, with room for a Past.

    Args:
      state: at step 0.
      images: f32[B, H, W, 3], or its description: the batch of a step.

    Returns:
      The state; what its Past holds is never read.
    """
    past = Past(
        state.params,
        state.opt_state.autoencoder,
        state.quantizer,
        state.params.autoencoder,
        images,
    )
    return state.replace(past=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), past))


def _taken(problem, state, frozen, straight_through):
    """The inner step before, out of the state's Past."""
    past = state.past
    # L asks a state for the step, the discriminator and the quantizer; running statistics of
    # BatchNorm have no part in a training pass.
    then = state.replace(step=state.step - 1, params=past.params, quantizer=past.quantizer)
    batch = cut(past.images, level_keys(then)[0], problem.parts)
    loss = make_loss(problem, then, frozen, straight_through)
    theta, phi, _ = past.params
    return InnerStep(loss, theta, past.opt_state, phi, past.gradient, batch)
