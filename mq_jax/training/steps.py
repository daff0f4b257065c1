"""From a configuration to the steps that alternate."""

from collections.abc import Callable

import optax
from ml_collections import ConfigDict

from mq_jax.algorithm import mq
from mq_jax.algorithm.implicit import Implicit
from mq_jax.algorithm.outer import OuterGradient, make_outer_gradient
from mq_jax.algorithm.pipelined import make_pipelined_step
from mq_jax.algorithm.problem import Problem
from mq_jax.algorithm.unrolling import make_rolled_back_step, make_unrolled_step


def make_gradient(
    problem: Problem, config: ConfigDict, pullback: optax.GradientTransformation | None
) -> Callable[..., OuterGradient]:
    """The outer gradient of the step of both levels, through one inner update.

    Args:
      problem: L and its optimizers.
      config: its section train is read; not joint, which has no such gradient.
      pullback: see bilevel.hypergradient.

    Returns:
      As outer.make_outer_gradient's.
    """
    fields = {"pullback_optimizer": pullback, "implicit": _implicit(config)}
    fields |= {name: config.train[name] for name in ("hypergradient", "straight_through")}
    return make_outer_gradient(problem, **fields)


def make_steps(
    problem: Problem, config: ConfigDict, pullback: optax.GradientTransformation | None
) -> tuple[mq.TrainStep, mq.TrainStep | None]:
    """The step of both levels and the one of the inner level alone.

    Args:
      problem: L and its optimizers.
      config: its section train is read.
      pullback: see bilevel.hypergradient.

    Returns:
      (the step that moves the codebook, the step between two of them or None where each does).
    """
    train = config.train
    estimator = {"straight_through": train.straight_through}
    if train.hypergradient == "joint":
        return mq.make_joint_step(problem, **estimator), None
    if train.hypergradient == "pipelined":
        step = make_pipelined_step(
            problem, **estimator, pullback_optimizer=pullback, keep=train.keep_activations
        )
        return step, None
    if train.unroll > 1:
        step = make_unrolled_step(problem, **estimator, pullback_optimizer=pullback)
    else:
        step = mq.make_train_step(
            problem,
            hypergradient=train.hypergradient,
            **estimator,
            pullback_optimizer=pullback,
            implicit=_implicit(config),
        )
    if train.roll_back:
        step = make_rolled_back_step(problem, step, **estimator)
    if train.unroll == train.inner_updates:
        return step, None
    return step, mq.make_inner_step(problem, **estimator)


def _implicit(config):
    """How far neumann and cg solve their system."""
    train = config.train
    return Implicit(train.implicit_terms, train.implicit_damping, train.neumann_rate)
