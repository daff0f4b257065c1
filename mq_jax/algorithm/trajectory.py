"""The hyper-gradient through several inner updates, one after the other, the last one first.

With u_k = (dU/dg)^T v_(k+1), the pull-backs of update k from theta_(k+1) and the optimizer's state
to its gradient, to theta_k and to the state before,

    indirect = sum_k  u_k^T d/dphi grad_theta L_k(theta_k, phi)
    v_k      = v_(k+1), pulled back to theta_k,  +  u_k^T d^2 L_k / dtheta^2

Each update is differentiated from theta_k anew: what its passes leave behind is in memory for one
update at a time, and of the others theta_k, the optimizer's state and the gradient are kept. This
file knows pytrees and Optax alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mq_jax.algorithm.accumulation import each
from mq_jax.algorithm.bilevel import Loss, PyTree, mixed_derivative, take_step


class Taken(NamedTuple):
    """An inner update as it was taken; several have a leading axis.

    Attributes:
      theta: inner parameters before it.
      opt_state: the inner optimizer's state before it.
      gradient: that it followed.
      context: what `loss_of` tells its loss and its batch by.
    """

    theta: PyTree
    opt_state: PyTree
    gradient: PyTree
    context: Any


def indirect_part(
    earlier: Taken,
    last: Taken,
    loss_of: Callable[[Any], tuple[Loss, PyTree]],
    optimizer: optax.GradientTransformation,
    phi: PyTree,
    v: PyTree,
    *,
    written_out: bool = False,
) -> PyTree:
    """The indirect part of the outer gradient through all of the inner updates.

    Args:
      earlier: the updates before the last, at least one, with a leading axis.
      last: the one that led to the theta of the outer loss.
      loss_of: context -> (loss of (theta, phi, part), batch of leaves [parts, ...]).
      optimizer: U, or what has its state and the Jacobian to be taken for U's.
      phi: outer parameters, the same in all of the updates.
      v: the outer loss's gradient over theta after the last.
      written_out: as of accumulation.each.

    Returns:
      A tree like phi.
    """

    def visit(carry, taken):
        adjoint, total = carry
        u, adjoint = _pull_back(optimizer, taken, adjoint)
        loss, batch = loss_of(taken.context)
        curved, part = mixed_derivative(loss, taken.theta, phi, batch, u, argnums=(0, 1))
        slope, moments = adjoint
        return ((_sum(slope, curved), moments), _sum(total, part)), None

    moments = jax.tree.map(jnp.zeros_like, _numbers(last.opt_state))
    carry, _ = visit(((v, moments), jax.tree.map(jnp.zeros_like, phi)), last)
    first, middle = (jax.tree.map(lambda leaf, i=i: leaf[i], earlier) for i in (0, slice(1, None)))
    if jax.tree.leaves(middle)[0].shape[0]:
        carry, _ = each(visit, carry, middle, reverse=True, written_out=written_out)
    adjoint, total = carry
    # Of the first update the theta before is given: its gradient over theta is not asked for.
    u, _ = _pull_back(optimizer, first, adjoint)
    loss, batch = loss_of(first.context)
    return _sum(total, mixed_derivative(loss, first.theta, phi, batch, u))


def _pull_back(optimizer, taken, adjoint):
    """(u, adjoint before) of one update: what its result asks of its gradient and its beginning."""

    def update(gradient, theta, numbers):
        opt_state = _with_numbers(taken.opt_state, numbers)
        theta, opt_state = take_step(optimizer, gradient, opt_state, theta)
        return theta, _numbers(opt_state)

    numbers = _numbers(taken.opt_state)
    _, pullback = jax.vjp(update, taken.gradient, taken.theta, numbers)
    u, *before = pullback(adjoint)
    return u, tuple(before)


def _is_number(leaf):
    """Counts of steps have no derivative."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _numbers(opt_state):
    return [leaf for leaf in jax.tree.leaves(opt_state) if _is_number(leaf)]


def _with_numbers(opt_state, numbers):
    leaves, tree = jax.tree.flatten(opt_state)
    replaced = iter(numbers)
    return jax.tree.unflatten(
        tree, [next(replaced) if _is_number(leaf) else leaf for leaf in leaves]
    )


def _sum(a, b):
    return jax.tree.map(jnp.add, a, b)
