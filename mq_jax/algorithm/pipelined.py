"""The pipelined step: the outer batch of one step is the inner batch of the next.

    v        = grad_theta L(theta, phi; x)                  the inner gradient of this step
    direct   = grad_phi   L(theta, phi; x)                  of the same backward pass
    indirect = v^T (dU/dg) (d/dphi) grad_theta L(theta_0, phi_0; x_0),  theta = theta_0 + U(g_0)
    theta'   = theta + U(v),    phi' = phi - opt(direct + indirect)

theta_0, phi_0, x_0, g_0 and U's state are those of the step before, which the state keeps. So the
batch x judges the inner step that has led to theta, and then takes one itself. Instead of phi_0 and
x_0 it may keep what (d/dphi) grad_theta L makes of them, the encoder's activations above all. See
docs/algorithm.md, section 2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mq_jax.algorithm import bilevel
from mq_jax.algorithm.mq import STRAIGHT_THROUGH, TrainStep
from mq_jax.algorithm.problem import Problem, advance_both_levels, cut, level_keys, make_loss
from mq_jax.algorithm.state import Kept, Past, TrainState

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
    u = _before_update(pullback_optimizer or optimizer, taken, v)
    indirect = bilevel.mixed_derivative(taken.loss, taken.theta, taken.phi, taken.batch, u)
    theta, opt_state = bilevel.take_step(optimizer, v, opt_state, theta)
    return bilevel.Bilevel(theta, opt_state, outcome, outcome, v, direct, indirect)


def kept_hypergradient(
    loss: bilevel.Loss,
    optimizer: optax.GradientTransformation,
    theta: PyTree,
    opt_state: PyTree,
    phi: PyTree,
    batch: PyTree,
    kept: Kept,
    *,
    pullback_optimizer: optax.GradientTransformation | None = None,
) -> tuple[bilevel.Bilevel, Kept]:
    """As hypergradient, without a pass over the batch before, from what its pass has left.

    Args:
      loss: as hypergradient's.
      optimizer: likewise.
      theta: likewise.
      opt_state: likewise.
      phi: likewise.
      batch: likewise, of the same shapes at each step.
      kept: of the inner step before.
      pullback_optimizer: as hypergradient's.

    Returns:
      (a Bilevel, Kept of this inner step).
    """
    (outcome, direct), v, mixed = _mixed_with_pass(loss, theta, phi, batch)
    residuals, linear = jax.tree.flatten(mixed)
    u = _before_update(pullback_optimizer or optimizer, kept, v)
    # One function, traced at each step of the same shapes: only its numbers are of then.
    (indirect,) = jax.tree.unflatten(linear, kept.residuals)(u)
    after = Kept(theta, opt_state, v, tuple(residuals))
    theta, opt_state = bilevel.take_step(optimizer, v, opt_state, theta)
    return bilevel.Bilevel(theta, opt_state, outcome, outcome, v, direct, indirect), after


def make_pipelined_step(
    problem: Problem,
    *,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
    keep: bool = False,
) -> TrainStep:
    """A step of both levels on one batch, for little more than a joint one.

    At the first step there is none before, and the indirect part is zero.

    Args:
      problem: L and its optimizers; with keep in one part.
      straight_through: a key of mq.STRAIGHT_THROUGH, of one estimator for both levels with keep.
      pullback_optimizer: see bilevel.hypergradient.
      keep: whether the state has a Kept, from with_kept, instead of a Past.

    Returns:
      train_step(state, batch, _, frozen=()) -> (state, metrics), as mq.make_train_step's; the
      state has a Past, and the outer batch is not read.
    """
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]
    optimizer = problem.optimizers.autoencoder

    def train_step(state, images, _, frozen=()):
        theta, phi, _ = state.params
        batch = cut(images, level_keys(state)[0], problem.parts)
        # The estimators of the levels differ in the gradient of phi alone.
        loss = make_loss(problem, state, frozen, outer_kind)
        at = loss, optimizer, theta, state.opt_state.autoencoder, phi, batch
        if keep:
            result, past = kept_hypergradient(
                *at, state.past, pullback_optimizer=pullback_optimizer
            )
        else:
            taken = _taken(problem, state, frozen, inner_kind)
            result = hypergradient(*at, taken, pullback_optimizer=pullback_optimizer)
            opt_state, gradient = state.opt_state.autoencoder, result.inner_gradient
            past = Past(state.params, opt_state, state.quantizer, gradient, images)
        exists = state.step > 0
        indirect = jax.tree.map(lambda leaf: jnp.where(exists, leaf, 0), result.indirect)
        after, metrics = advance_both_levels(
            problem, state, result._replace(indirect=indirect), batch.images
        )
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
    opt_state, gradient = state.opt_state.autoencoder, state.params.autoencoder
    return _with(state, Past(state.params, opt_state, state.quantizer, gradient, images))


def with_kept(
    problem: Problem, state: TrainState, images: Any, frozen: Any, *, straight_through: str
) -> TrainState:
    """A state before its first pipelined step that keeps, with room for a Kept.

    Args:
      problem: L and its optimizers.
      state: at step 0.
      images: f32[B, H, W, 3], or its description: the batch of a step.
      frozen: the weights of LPIPS where L has it, or their description.
      straight_through: as make_pipelined_step's.

    Returns:
      The state; what its Kept holds is never read.
    """

    def residuals(state, images, frozen):
        loss = make_loss(problem, state, frozen, STRAIGHT_THROUGH[straight_through][1])
        batch = cut(images, level_keys(state)[0], problem.parts)
        _, _, mixed = _mixed_with_pass(loss, *state.params[:2], batch)
        return tuple(jax.tree.leaves(mixed))

    theta, opt_state = state.params.autoencoder, state.opt_state.autoencoder
    left = jax.eval_shape(residuals, state, images, frozen)
    return _with(state, Kept(theta, opt_state, theta, left))


def _with(state, past):
    """The state with zeros in the place of the step before."""
    return state.replace(past=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), past))


def _mixed_with_pass(loss, theta, phi, batch):
    """((outcome, direct), v, u -> u^T d/dphi grad_theta L), whose leaves are what the pass left."""

    def slope(phi):
        outcome, (v, direct) = bilevel.value_and_gradient(loss, theta, phi, batch, argnums=(0, 1))
        return v, (outcome, direct)

    v, mixed, met = jax.vjp(slope, phi, has_aux=True)
    return met, v, mixed


def _before_update(optimizer, taken, v):
    """v^T (dU/dg) at the inner step that was taken."""

    def update(gradient):
        return bilevel.take_step(optimizer, gradient, taken.opt_state, taken.theta)[0]

    _, pullback = jax.vjp(update, taken.gradient)
    return pullback(v)[0]


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
