"""The outer gradient alone: its two parts and what a step would report of them, nothing moved."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from mq_jax.algorithm import bilevel, pipelined
from mq_jax.algorithm.implicit import Implicit
from mq_jax.algorithm.mq import STRAIGHT_THROUGH, make_bilevel, make_joint_step
from mq_jax.algorithm.problem import Problem, cut, level_keys, make_loss, outer_update


class OuterGradient(NamedTuple):
    """The gradient by which phi would move.

    Attributes:
      direct: part, a tree like phi.
      indirect: part, likewise.
      metrics: of both levels, by name, as a train step has them.
    """

    direct: Any
    indirect: Any
    metrics: dict[str, jax.Array]


def make_outer_gradient(
    problem: Problem,
    *,
    hypergradient: str,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
    implicit: Implicit | None = None,
) -> Callable[..., OuterGradient]:
    """The outer gradient of any kind, through one inner update.

    `pipelined` is that of the second step of a run that begins at the state: the first, a joint
    one, is taken on the inner batch.

    Args:
      problem: L and its optimizers.
      hypergradient: one of bilevel.KINDS, or "pipelined".
      straight_through: a key of STRAIGHT_THROUGH.
      pullback_optimizer: see bilevel.hypergradient.
      implicit: likewise.

    Returns:
      outer_gradient(state, inner_batch, outer_batch, frozen=()) -> OuterGradient, pure; arguments
      as those of mq.make_train_step's step.
    """
    shared = {"straight_through": straight_through, "pullback_optimizer": pullback_optimizer}
    if hypergradient == "pipelined":
        at = _make_second_step(problem, **shared)
    else:
        at_once = make_bilevel(problem, hypergradient=hypergradient, implicit=implicit, **shared)
        at = lambda state, *given: (state, at_once(state, *given))  # noqa: E731

    def outer_gradient(state, inner_batch, outer_batch, frozen=()):
        state, result = at(state, inner_batch, outer_batch, frozen)
        _, _, metrics = outer_update(problem, state, result)
        return OuterGradient(result.direct, result.indirect, metrics)

    return outer_gradient


def _make_second_step(problem, *, straight_through, pullback_optimizer):
    """(state, batch, next batch, frozen) -> (state after a joint step on the first, Bilevel)."""
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]
    joint_step = make_joint_step(problem, straight_through=outer_kind)

    def second(state, images, next_images, frozen):
        theta, phi, _ = state.params
        at = theta, state.opt_state.autoencoder, phi
        loss = make_loss(problem, state, frozen, inner_kind)
        batch = cut(images, level_keys(state)[0], problem.parts)
        # XLA finds that the joint step has this pass, too.
        _, gradient = bilevel.value_and_gradient(loss, theta, phi, batch)
        taken = pipelined.InnerStep(loss, *at, gradient, batch)
        state, _ = joint_step(state, images, None, frozen)
        result = pipelined.hypergradient(
            make_loss(problem, state, frozen, outer_kind),
            problem.optimizers.autoencoder,
            state.params.autoencoder,
            state.opt_state.autoencoder,
            state.params.codebook,
            cut(next_images, level_keys(state)[0], problem.parts),
            taken,
            pullback_optimizer=pullback_optimizer,
        )
        return state, result

    return second
