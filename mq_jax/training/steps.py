"""From a configuration to the steps that alternate."""

import optax
from ml_collections import ConfigDict

from mq_jax.algorithm import mq
from mq_jax.algorithm.implicit import Implicit
from mq_jax.algorithm.pipelined import make_pipelined_step
from mq_jax.algorithm.problem import Problem
from mq_jax.algorithm.unrolling import make_rolled_back_step, make_unrolled_step


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
            implicit=Implicit(train.implicit_terms, train.implicit_damping, train.neumann_rate),
        )
    if train.roll_back:
        step = make_rolled_back_step(problem, step, **estimator)
    if train.unroll == train.inner_updates:
        return step, None
    return step, mq.make_inner_step(problem, **estimator)
