"""Meta-Quantization (Qin & Zhang, ICML 2025), Algorithm 1, and the joint step beside it.

    L(theta, phi; x) = task(x, D_theta(z_hat)) + lambda_q * mean((z - z_q)^2) [+ adversarial]

    inner:  theta' = theta + U(grad_theta L(theta, phi; x_inner))
    outer:  phi    <- phi - opt( d/dphi L(theta'(phi), phi; x_outer) )

One formula serves both levels: which argument is differentiated says who learns. A
discriminator, where there is one, then learns from the inner pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mq_jax.algorithm import bilevel
from mq_jax.algorithm.adversary import Adversary
from mq_jax.algorithm.objective import Objective
from mq_jax.algorithm.optim import restarted
from mq_jax.algorithm.state import Parts, TrainState
from mq_jax.algorithm.step_metrics import inner_metrics, two_level_metrics

HYPERGRADIENTS = (*bilevel.KINDS, "joint")

# The estimator of each level: (inner, outer).
STRAIGHT_THROUGH = {
    "encoder": ("encoder", "encoder"),
    "encoder-and-codewords": ("encoder-and-codewords", "encoder-and-codewords"),
    "encoder-and-codewords-inside": ("encoder-and-codewords", "encoder"),
    "rotation": ("rotation", "rotation"),
    "diveq": ("diveq", "diveq"),
}

TrainStep = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


class Problem(NamedTuple):
    """What every kind of step is made for.

    Attributes:
      objective: L.
      optimizers: Optax transformations of the auto-encoder (inner), the codebook (outer) and,
        with an adversary, the discriminator.
      adversary: how the discriminator learns; None without one.
      ema_decay: of the moving averages of theta, phi and BatchNorm's statistics, 0 for none.
      parts: into which a batch is cut, one in memory at a time (gradient accumulation).
    """

    objective: Objective
    optimizers: Parts
    adversary: Adversary | None = None
    ema_decay: float = 0.0
    parts: int = 1


def make_train_step(
    problem: Problem,
    *,
    hypergradient: str,
    straight_through: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
) -> TrainStep:
    """Algorithm 1: an inner step on theta, then an outer step on phi through it.

    Args:
      problem: L and its optimizers.
      hypergradient: one of bilevel.KINDS.
      straight_through: a key of STRAIGHT_THROUGH.
      pullback_optimizer: see bilevel.hypergradient.

    Returns:
      train_step(state, inner_batch, outer_batch, frozen=()) -> (state, metrics), pure; batches
      are f32[B, H, W, 3] in [-1, 1], `frozen` the weights of LPIPS where L has it, metrics
      scalars by name and `inner/code_counts` i32[K].
    """
    inner_kind, outer_kind = STRAIGHT_THROUGH[straight_through]

    def train_step(state, inner_batch, outer_batch, frozen=()):
        theta, phi, _ = state.params
        inner_key, outer_key = _level_keys(state)
        batches = (
            _cut(inner_batch, inner_key, problem.parts),
            _cut(outer_batch, outer_key, problem.parts),
        )
        result = bilevel.hypergradient(
            _make_loss(problem, state, frozen, inner_kind),
            _make_loss(problem, state, frozen, outer_kind),
            problem.optimizers.autoencoder,
            theta,
            state.opt_state.autoencoder,
            phi,
            batches,
            kind=hypergradient,
            pullback_optimizer=pullback_optimizer,
        )
        gradient = jax.tree.map(jnp.add, result.direct, result.indirect)
        phi, phi_state = bilevel.take_step(
            problem.optimizers.codebook, gradient, state.opt_state.codebook, phi
        )
        params = state.params._replace(autoencoder=result.theta, codebook=phi)
        opt_state = state.opt_state._replace(autoencoder=result.opt_state, codebook=phi_state)
        metrics = two_level_metrics(problem.objective, result, phi, state.quantizer)
        state, disc_metrics = _advance(
            problem, state, params, opt_state, batches[0].images, result.inner[1]
        )
        return state, metrics | disc_metrics

    return train_step


def make_inner_step(problem: Problem) -> TrainStep:
    """An inner step alone, for several inner updates to one outer update.

    A step of its own, not a branch inside train_step: XLA's CPU backend runs the convolutions
    of a conditional an order of magnitude slower.

    Args:
      problem: L and its optimizers.

    Returns:
      inner_step(state, batch, _, frozen=()) -> (state, metrics), as make_train_step's, without
      the outer level's metrics; the codebook stays and the outer batch is not read.
    """

    def inner_step(state, batch, _, frozen=()):
        theta, phi, _ = state.params
        batch = _cut(batch, _level_keys(state)[0], problem.parts)
        # The estimators differ in the gradient of phi alone.
        loss = _make_loss(problem, state, frozen, "encoder")
        (value, outputs), gradient = bilevel.value_and_gradient(loss, theta, phi, batch)
        theta, theta_state = bilevel.take_step(
            problem.optimizers.autoencoder, gradient, state.opt_state.autoencoder, theta
        )
        params = state.params._replace(autoencoder=theta)
        opt_state = state.opt_state._replace(autoencoder=theta_state)
        state, disc_metrics = _advance(problem, state, params, opt_state, batch.images, outputs)
        return state, inner_metrics(problem.objective, value, outputs, gradient) | disc_metrics

    return inner_step


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
        batch, levels = _cut(batch, _level_keys(state)[0], problem.parts), state.params[:2]
        loss = _make_loss(problem, state, frozen, straight_through)
        (value, outputs), gradients = bilevel.value_and_gradient(
            loss, *levels, batch, argnums=(0, 1)
        )
        (theta, theta_state), (phi, phi_state) = map(
            bilevel.take_step, problem.optimizers[:2], gradients, state.opt_state[:2], levels
        )
        params = state.params._replace(autoencoder=theta, codebook=phi)
        opt_state = state.opt_state._replace(autoencoder=theta_state, codebook=phi_state)
        state, disc_metrics = _advance(problem, state, params, opt_state, batch.images, outputs)
        return state, {
            **inner_metrics(problem.objective, value, outputs, gradients[0]),
            "inner/codebook_gradient_norm": optax.tree.norm(gradients[1]),
            **disc_metrics,
        }

    return train_step


class _Batch(NamedTuple):
    """A batch, or a part of it, as a loss takes it; whole, its leaves have an axis of parts.

    Attributes:
      images: f32[b, H, W, 3] in [-1, 1].
      key: of what the pass over it draws: one, so that every derivative sees the same draw.
    """

    images: jax.Array
    key: jax.Array


def _level_keys(state: TrainState) -> jax.Array:
    """The random keys of the inner and of the outer level in this step."""
    return jax.random.split(jax.random.fold_in(state.rng, state.step))


def _cut(images: jax.Array, key: jax.Array, parts: int) -> _Batch:
    """[B, ...] -> [parts, B / parts, ...], each part with rows of every device and a key."""
    images = images.reshape(-1, parts, *images.shape[1:]).swapaxes(0, 1)
    return _Batch(images, jax.random.split(key, parts))


def _make_loss(
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


def _advance(problem, state, params, opt_state, images, outputs):
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
        # The first averages span few steps, as there are few.
        decay = jnp.minimum(problem.ema_decay, (1 + state.step) / (10 + state.step))

        def average(old, new):
            # A count of steps has no average.
            moves = jnp.issubdtype(new.dtype, jnp.floating)
            return decay * old + (1 - decay) * new if moves else new

        advanced = advanced.replace(ema=jax.tree.map(average, state.ema, advanced.raw))
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
