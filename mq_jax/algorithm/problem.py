"""What every train step is made for, and what all of them do alike."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mq_jax.algorithm import bilevel
from mq_jax.algorithm.accumulation import in_parts
from mq_jax.algorithm.adversary import Adversary
from mq_jax.algorithm.objective import Objective
from mq_jax.algorithm.optim import averaged, restarted
from mq_jax.algorithm.state import Parts, TrainState
from mq_jax.algorithm.step_metrics import two_level_metrics


class Problem(NamedTuple):
    """What every kind of step is made for.

    Attributes:
      objective: L.
      optimizers: Optax transformations of the auto-encoder (inner), the codebook (outer) and,
        with an adversary, the discriminator.
      adversary: how the discriminator learns; None without one.
      ema_decay: of the moving averages of theta, phi and BatchNorm's statistics, 0 for none.
      parts: into which a batch is cut, one in memory at a time (gradient accumulation).
      written_out: whether several inner updates of one step follow each other without a loop.
    """

    objective: Objective
    optimizers: Parts
    adversary: Adversary | None = None
    ema_decay: float = 0.0
    parts: int = 1
    written_out: bool = False


class Batch(NamedTuple):
    """A batch, or a part of it, as a loss takes it; whole, its leaves have an axis of parts.

    Attributes:
      images: f32[b, H, W, 3] in [-1, 1].
      key: of what the pass over it draws: one, so that every derivative sees the same draw.
    """

    images: jax.Array
    key: jax.Array


def level_keys(state: TrainState) -> jax.Array:
    """The random keys of the inner and of the outer level in this step."""
    return jax.random.split(jax.random.fold_in(state.rng, state.step))


def cut(images: jax.Array, key: jax.Array, parts: int) -> Batch:
    """[B, ...] -> [parts, B / parts, ...], each part with rows of every device and a key."""
    return Batch(in_parts(images, parts), jax.random.split(key, parts))


def make_loss(
    problem: Problem, state: TrainState, frozen: Any, straight_through: str
) -> bilevel.Loss:
    """L as a function of theta, phi and a part of a batch alone."""
    opponent = problem.adversary and problem.adversary.opponent(state)

    def loss(theta, phi, part):
        return problem.objective(
            theta,
            phi,
            state.batch_stats,
            part.images,
            straight_through=straight_through,
            quantizer_state=state.quantizer,
            rng=part.key,
            frozen=frozen,
            opponent=opponent,
        )

    return loss


def outer_update(
    problem: Problem, state: TrainState, result: bilevel.Bilevel
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """The outer level alone.

    Args:
      problem: L and its optimizers.
      state: before the step.
      result: the inner step and the outer gradient.

    Returns:
      (phi, its optimizer's state, the metrics of both levels) after it.
    """
    gradient = jax.tree.map(jnp.add, result.direct, result.indirect)
    phi, phi_state = bilevel.take_step(
        problem.optimizers.codebook, gradient, state.opt_state.codebook, state.params.codebook
    )
    return phi, phi_state, two_level_metrics(problem.objective, result, phi, state.quantizer)


def advance_both_levels(
    problem: Problem, state: TrainState, result: bilevel.Bilevel, images: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after both levels have taken their steps, and the metrics.

    Args:
      problem: L and its optimizers.
      state: before the step.
      result: the inner step and the outer gradient.
      images: f32[parts, b, H, W, 3] in [-1, 1], the inner batch.

    Returns:
      (state, metrics).
    """
    phi, phi_state, metrics = outer_update(problem, state, result)
    params = state.params._replace(autoencoder=result.theta, codebook=phi)
    opt_state = state.opt_state._replace(autoencoder=result.opt_state, codebook=phi_state)
    state, disc_metrics = advance(problem, state, params, opt_state, images, result.inner[1])
    return state, metrics | disc_metrics


def advance(problem, state, params, opt_state, images, outputs):
    """The state one inner update later, the discriminator's update included, and its metrics."""
    anchors, metrics = state.anchors, {}
    if problem.adversary is not None:
        psi, psi_state, anchors, metrics = problem.adversary.update(
            problem.optimizers.discriminator, state, images, outputs.images
        )
        params = params._replace(discriminator=psi)
        opt_state = opt_state._replace(discriminator=psi_state)
    params, opt_state, quantizer_state = _advance_quantizer(
        problem, state, params, opt_state, outputs.statistics
    )
    # Each part of a batch has moved the same statistics.
    batch_stats = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), outputs.batch_stats)
    advanced = state.replace(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        batch_stats=batch_stats,
        anchors=anchors,
        quantizer=quantizer_state,
    )
    if problem.ema_decay:
        moved = averaged(state.ema, advanced.raw, problem.ema_decay, state.step)
        advanced = advanced.replace(ema=moved)
    return advanced, metrics


def _advance_quantizer(problem, state, params, opt_state, statistics):
    """What of the quantizer no gradient moves, once a step, by the inner pass, as BatchNorm's."""
    key = jax.random.fold_in(state.rng, state.step)
    # Apart from the keys of the levels, which are split from this one.
    key = jax.random.fold_in(key, 2)
    with jax.named_scope("quantizer"):
        phi, quantizer_state, replaced = problem.objective.quantizer.advance(
            params.codebook, state.quantizer, statistics, key
        )
    if replaced is None:
        return params, opt_state, quantizer_state
    moments = restarted(problem.optimizers.codebook, opt_state.codebook, params.codebook, replaced)
    return (
        params._replace(codebook=phi),
        opt_state._replace(codebook=moments),
        quantizer_state,
    )
