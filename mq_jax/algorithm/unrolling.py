"""Steps of several inner updates to one outer, exact through all of them; and steps taken again.

    theta_(k+1) = theta_k + U(grad_theta L(theta_k, phi; x_k)),   k = 0 .. n - 1
    phi        <- phi - opt( d/dphi L(theta_n(phi), phi; x_outer) )

and, rolled back, theta_1 .. theta_n once more from theta_0, on the same batches, with the new phi.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from mq_jax.algorithm import trajectory
from mq_jax.algorithm.accumulation import each
from mq_jax.algorithm.bilevel import Bilevel, take_step, value_and_gradient
from mq_jax.algorithm.mq import STRAIGHT_THROUGH, TrainStep, inner_update
from mq_jax.algorithm.problem import Problem, advance_both_levels, cut, level_keys, make_loss
from mq_jax.algorithm.state import Parts


def make_unrolled_step(
    problem: Problem,
    *,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
) -> TrainStep:
    """Several inner updates, then an outer one with the hyper-gradient through all of them.

    The inner updates are those of mq.make_inner_step, to the last the discriminator's and the
    quantizer's own; what these two become on the way counts as constant.

    Args:
      problem: L and its optimizers.
      straight_through: a key of mq.STRAIGHT_THROUGH.
      pullback_optimizer: see bilevel.hypergradient.

    Returns:
      train_step(state, inner_batches, outer_batch, frozen=()) -> (state, metrics), as
      mq.make_train_step's but for a sequence of at least two inner batches, one an update, by
      which state.step grows; metrics of the inner level and of the discriminator are means over
      the updates, code counts sums.
    """
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]
    optimizer = problem.optimizers.autoencoder

    def train_step(state, inner_batches, outer_batch, frozen=()):
        def loss_of(context):
            then, batch = context
            return make_loss(problem, then, frozen, inner_kind), batch

        def taken(state, images, gradient):
            batch = cut(images, level_keys(state)[0], problem.parts)
            context = _constants(state), batch
            return trajectory.Taken(
                state.params.autoencoder, state.opt_state.autoencoder, gradient, context
            )

        def visit(state, images):
            after, metrics, gradient = inner_update(problem, state, images, frozen, inner_kind)
            return after, (metrics, taken(state, images, gradient))

        *first, last = inner_batches
        state, (metrics, earlier) = each(
            visit, state, jnp.stack(first), written_out=problem.written_out
        )
        theta, phi, _ = state.params
        end = taken(state, last, ())
        loss, batch = loss_of(end.context)
        inner, gradient = value_and_gradient(loss, theta, phi, batch)
        theta, opt_state = take_step(optimizer, gradient, state.opt_state.autoencoder, theta)
        outer, (v, direct) = value_and_gradient(
            make_loss(problem, state, frozen, outer_kind),
            theta,
            phi,
            cut(outer_batch, level_keys(state)[1], problem.parts),
            argnums=(0, 1),
        )
        followed = pullback_optimizer or optimizer
        end = end._replace(gradient=gradient)
        indirect = trajectory.indirect_part(
            earlier, end, loss_of, followed, phi, v, written_out=problem.written_out
        )
        result = Bilevel(theta, opt_state, inner, outer, gradient, direct, indirect)
        state, at_last = advance_both_levels(problem, state, result, batch.images)
        return state, at_last | _over_updates(metrics, at_last)

    return train_step


def make_rolled_back_step(
    problem: Problem, train_step: TrainStep, *, straight_through: str
) -> TrainStep:
    """The step of both levels, of which the codebook's update alone is kept, and theta's again.

    Args:
      problem: L and its optimizers.
      train_step: of both levels, as mq.make_train_step or make_unrolled_step returns it.
      straight_through: a key of mq.STRAIGHT_THROUGH.

    Returns:
      As train_step; all that an inner update advances does so by those that are taken again, and
      the metrics of the inner level are theirs.
    """
    inner_kind, _ = STRAIGHT_THROUGH[straight_through]

    def rolled_back_step(state, inner_batches, outer_batch, frozen=()):
        ahead, metrics = train_step(state, inner_batches, outer_batch, frozen)
        params = state.params._replace(codebook=ahead.params.codebook)
        opt_state = state.opt_state._replace(codebook=ahead.opt_state.codebook)

        def visit(state, images):
            return inner_update(problem, state, images, frozen, inner_kind)[:2]

        several = isinstance(inner_batches, Sequence)
        images = jnp.stack(inner_batches) if several else inner_batches[None]
        start = state.replace(params=params, opt_state=opt_state)
        state, again = each(visit, start, images, written_out=problem.written_out)
        return state, metrics | _over_updates(again)

    return rolled_back_step


def _constants(state):
    """What of a state L reads beside theta and phi."""
    psi = Parts((), (), state.params.discriminator)
    return state.replace(params=psi, opt_state=(), ema=())


def _over_updates(metrics, last=None):
    """Metrics of inner updates [n] by name, with those of one more: means, and sums of counts."""

    def over(name, values):
        if last is not None:
            values = jnp.append(values, last[name][None], axis=0)
        return jnp.sum(values, 0) if values.dtype == jnp.int32 else jnp.mean(values, 0)

    return {name: over(name, values) for name, values in metrics.items()}
