"""The pipelined step: closed form, the exact derivative through the step before, the first step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import tiny_gan

from mq_jax.algorithm import bilevel, mq, pipelined
from mq_jax.algorithm.accumulation import mean_over_parts
from mq_jax.algorithm.problem import make_loss
from mq_jax.algorithm.state import Kept, Parts

pytestmark = pytest.mark.usefixtures("float64")

RATE = 0.3


def matrix(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


A = matrix(0, 3, 3) + matrix(0, 3, 3).T
B = matrix(1, 3, 2)


def quadratic(theta, phi, weight):
    """(theta.A.theta / 2 + theta.B.phi + |phi|^2 / 2) weight."""
    return weight * (theta @ A @ theta / 2 + theta @ B @ phi + phi @ phi / 2), theta


@pytest.mark.parametrize("parts", [np.ones(1), np.array([0.5, 1.75, 0.75])])
def test_both_parts_have_their_closed_form_on_a_quadratic(parts):
    sgd, theta_0, phi_0, phi = tiny.make_sgd(RATE), matrix(2, 3), matrix(3, 2), matrix(4, 2)
    gradient_0 = A @ theta_0 + B @ phi_0
    theta = theta_0 - RATE * gradient_0
    state = sgd.init(theta)
    taken = pipelined.InnerStep(quadratic, theta_0, state, phi_0, gradient_0, parts[::-1])
    result = pipelined.hypergradient(quadratic, sgd, theta, state, phi, parts, taken)

    v = A @ theta + B @ phi
    np.testing.assert_allclose(result.inner_gradient, v, rtol=1e-12)
    np.testing.assert_allclose(result.theta, theta - RATE * v, rtol=1e-12)
    np.testing.assert_allclose(result.direct, B.T @ theta + phi, rtol=1e-12)
    np.testing.assert_allclose(result.indirect, -RATE * B.T @ v, rtol=1e-12)


def test_what_a_pass_left_gives_the_next_step_the_same_as_a_pass_made_anew():
    adam = tiny.make_adam(RATE, eps=1e-3, eps_root=1e-2)
    other = tiny.make_adam(RATE, eps=1.0, eps_root=1e-2)
    theta, phi, parts = matrix(2, 3), matrix(3, 2), np.ones(1)
    state = adam.init(theta)
    respond = functools.partial(pipelined.kept_hypergradient, quadratic, adam)
    # Of the shapes that the first step leaves; what it made of its own past is not asked.
    nothing = jax.eval_shape(
        lambda: jax.vjp(lambda phi: jax.grad(quadratic, has_aux=True)(theta, phi, 1.0)[0], phi)[1]
    )
    zeros = tuple(jnp.zeros(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(nothing))
    first, kept = respond(theta, state, phi, parts, Kept(theta, state, theta, zeros))
    taken = pipelined.InnerStep(quadratic, theta, state, phi, first.inner_gradient, np.ones(1))
    at = first.theta, first.opt_state, matrix(4, 2), np.array([1.75])
    for pullback in (None, other):
        want = pipelined.hypergradient(quadratic, adam, *at, taken, pullback_optimizer=pullback)
        got, _ = respond(*at, kept, pullback_optimizer=pullback)
        for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_pullback_optimizer_changes_the_indirect_part_alone():
    adam, other = (tiny.make_adam(RATE, eps=eps, eps_root=1e-2) for eps in (1e-3, 1.0))
    theta, phi, parts = matrix(2, 3), matrix(3, 2), np.ones(1)
    gradient = A @ theta + B @ phi
    taken = pipelined.InnerStep(quadratic, theta, adam.init(theta), phi, gradient, parts)
    _, after = bilevel.take_step(adam, gradient, adam.init(theta), theta)
    solve = functools.partial(
        pipelined.hypergradient, quadratic, adam, theta, after, phi, parts, taken
    )
    plain, damped = solve(), solve(pullback_optimizer=other)

    root = np.sqrt(gradient**2 + 1e-2)
    for eps, result in ((1e-3, plain), (1.0, damped)):
        slope = -RATE * (root + eps - gradient**2 / root) / (root + eps) ** 2
        v = result.inner_gradient
        np.testing.assert_allclose(result.indirect, B.T @ (slope * v), rtol=1e-9)
    for field in ("theta", "opt_state", "direct"):
        for a, b in zip(
            *(jax.tree.leaves(getattr(r, field)) for r in (plain, damped)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


OPTIMIZERS = Parts(tiny.make_adam(1e-2), optax.sgd(1.0))
GAN = Parts(tiny.make_adam(1e-2), optax.sgd(1.0), tiny.make_adam(1e-2))


def problem_of(name):
    """(problem, state before the first step, what is frozen)."""
    if name == "mqgan":
        problem = tiny_gan.make_problem(GAN, vqgan=True)
        return problem, tiny_gan.make_state(problem), tiny_gan.FROZEN
    # Deep: every layer of the encoder, BatchNorm's statistics of each part of a batch included.
    deep = name == "deep mqvae"
    problem = mq.Problem(tiny.make_objective(deep=deep), OPTIMIZERS, parts=1 + deep)
    return problem, tiny.make_state(problem.objective, OPTIMIZERS), ()


def images_of(step):
    return tiny.make_images(4, seed=step)


def started(name, straight_through):
    """(step, state with room for a Past, problem, what is frozen)."""
    problem, state, frozen = problem_of(name)
    step = pipelined.make_pipelined_step(problem, straight_through=straight_through)
    state = pipelined.with_past(state, images_of(0))
    return tiny.jit(step), state, problem, frozen


def exact_parts(problem, frozen, straight_through, before, state, images):
    """The direct part and the derivative through the step before, reverse over reverse."""
    kinds = mq.STRAIGHT_THROUGH[straight_through]
    batches = [
        pipelined_batch(problem, at, x) for at, x in zip((before, state), images, strict=True)
    ]
    inner, outer = (
        make_loss(problem, at, frozen, kind)
        for at, kind in zip((before, state), kinds, strict=True)
    )

    def through_the_step(inner_phi, outer_phi):
        theta = before.params.autoencoder
        _, gradient = bilevel.value_and_gradient(inner, theta, inner_phi, batches[0])
        theta, _ = bilevel.take_step(
            problem.optimizers.autoencoder, gradient, before.opt_state.autoencoder, theta
        )
        value, _ = mean_over_parts(lambda part: outer(theta, outer_phi, part), batches[1])
        return value

    return jax.grad(through_the_step, argnums=(1, 0))(before.params.codebook, state.params.codebook)


def pipelined_batch(problem, state, images):
    return mq.cut(images, mq.level_keys(state)[0], problem.parts)


@pytest.mark.parametrize(
    "name, straight_through",
    [
        ("mqvae", "encoder-and-codewords-inside"),
        *(
            pytest.param(name, kind, marks=pytest.mark.slow)
            for name in ("deep mqvae", "mqgan")
            for kind in mq.STRAIGHT_THROUGH
        ),
    ],
)
def test_the_indirect_part_is_the_derivative_through_the_step_before(name, straight_through):
    """At the codebook of then, through Adam as it was: against reverse over reverse."""
    step, state, problem, frozen = started(name, straight_through)
    for i in range(2):
        before, (state, _) = state, step(state, images_of(i), None, frozen)
    after, metrics = step(state, images_of(2), None, frozen)
    exact = tiny.jit(functools.partial(exact_parts, problem, frozen, straight_through))
    direct, indirect = exact(before, state, [images_of(1), images_of(2)])

    # SGD at rate 1 moves the codebook by the gradient.
    moved = jax.tree.map(jnp.subtract, state.params.codebook, after.params.codebook)
    through = jax.tree.map(jnp.subtract, moved, direct)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-13), through, indirect
    )
    norms = [optax.tree.norm(part) for part in (direct, indirect)]
    np.testing.assert_allclose(metrics["outer/direct_norm"], norms[0], rtol=1e-10)
    np.testing.assert_allclose(metrics["outer/indirect_norm"], norms[1], rtol=1e-8)
    assert norms[1] > 1e-4 * norms[0]
    cosine = optax.tree.vdot(direct, indirect) / (norms[0] * norms[1])
    np.testing.assert_allclose(metrics["outer/direct_indirect_cosine"], cosine, rtol=1e-7)


@pytest.mark.parametrize(
    "name", ["mqvae", *(pytest.param(name, marks=pytest.mark.slow) for name in ("deep", "mqgan"))]
)
def test_kept_activations_change_no_step(name):
    """Of three, the first without a step before it; whatever its Kept holds."""
    problem, state, frozen = problem_of({"deep": "deep mqvae"}.get(name, name))
    problem = problem._replace(parts=1)
    plain, keeping = (
        tiny.jit(pipelined.make_pipelined_step(problem, straight_through="encoder", keep=keep))
        for keep in (False, True)
    )
    anew = pipelined.with_past(state, images_of(0))
    kept = pipelined.with_kept(problem, state, images_of(0), frozen, straight_through="encoder")
    kept = kept.replace(
        past=jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype), kept.past)
    )
    for i in range(3):
        (anew, want), (kept, got) = (
            step(at, images_of(i), None, frozen) for step, at in ((plain, anew), (keeping, kept))
        )
        assert (got["outer/indirect_norm"] == 0) == (i == 0)
        for a, b in zip(
            *(jax.tree.leaves((s.params, s.opt_state, s.batch_stats)) for s in (kept, anew)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)
        for metric in want:
            np.testing.assert_allclose(got[metric], want[metric], rtol=1e-7, atol=1e-12)


def test_the_first_step_is_a_joint_one_and_every_inner_step_too():
    """None before it, no indirect part; what a Past holds before it is never read."""
    step, state, problem, _ = started("mqvae", "encoder")
    joint = tiny.jit(mq.make_joint_step(problem, straight_through="encoder"))
    unread = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype), state.past)
    for i in range(2):
        want, want_metrics = joint(state, images_of(i), None)
        after, metrics = step(state if i else state.replace(past=unread), images_of(i), None)
        assert (metrics["outer/indirect_norm"] == 0) == (i == 0)
        leaves = [
            jax.tree.leaves((s.step, s.params.autoencoder, s.opt_state.autoencoder, s.batch_stats))
            for s in (after, want)
        ]
        for a, b in zip(*leaves, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        for name, value in want_metrics.items():
            names = {"inner/codebook_gradient_norm": "outer/direct_norm"}
            np.testing.assert_allclose(metrics[names.get(name, name)], value, rtol=1e-9)
        assert metrics["outer/loss"] == metrics["inner/loss"] and metrics["outer/updates"] == 1
        if i == 0:
            for a, b in zip(*map(jax.tree.leaves, (after.params, want.params)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        state = after
