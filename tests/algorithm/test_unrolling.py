"""Steps of several inner updates, and steps that are rolled back: what they equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import tiny_gan

from mq_jax.algorithm import mq, unrolling
from mq_jax.algorithm.bilevel import take_step, value_and_gradient
from mq_jax.algorithm.problem import cut, level_keys, make_loss
from mq_jax.algorithm.state import Parts

pytestmark = pytest.mark.usefixtures("float64")

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
# At rate 1 without momentum the codebook moves by the gradient.
OPTIMIZERS = Parts(tiny.make_adam(1e-2, eps=1e-4), optax.sgd(1.0))
UNROLL = 3


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, **(tolerance or CLOSE))


def problem_of(parts=1):
    return mq.Problem(tiny.make_objective(), OPTIMIZERS, ema_decay=0.9, parts=parts)


def start():
    state = tiny.make_state(tiny.make_objective(), OPTIMIZERS)
    return state.replace(ema=state.raw)


def batches_of(n=UNROLL):
    return tuple(tiny.make_images(4, seed=k) for k in range(n)), tiny.make_images(4, seed=n)


@functools.cache
def unrolled(parts=1, n=UNROLL, rolled_back=False):
    """(state, metrics) after one step, from `start`."""
    problem = problem_of(parts)
    if n > 1:
        step = unrolling.make_unrolled_step(problem, straight_through="encoder")
    else:
        step = mq.make_train_step(problem, hypergradient="unrolled", straight_through="encoder")
    if rolled_back:
        step = unrolling.make_rolled_back_step(problem, step, straight_through="encoder")
    inner, outer = batches_of(n)
    return tiny.jit(step)(start(), inner if n > 1 else inner[0], outer)


@functools.cache
def inner_steps(n=UNROLL):
    """(state, metrics) after each of n inner steps alone."""
    step, state, found = tiny.jit(mq.make_inner_step(problem_of())), start(), []
    for images in batches_of(n)[0]:
        state, metrics = step(state, images, None)
        found.append((state, metrics))
    return found


def test_theta_goes_the_way_of_as_many_inner_steps():
    state, metrics = unrolled()
    alone, _ = inner_steps()[-1]
    assert state.step == UNROLL == alone.step
    for name in ("params", "opt_state"):
        close(getattr(state, name).autoencoder, getattr(alone, name).autoencoder)
    close(state.batch_stats, alone.batch_stats)
    for name, value in metrics.items():
        if name.startswith("inner/"):
            values = [metrics[name] for _, metrics in inner_steps()]
            total = np.sum(values, axis=0)
            want = total if name == "inner/code_counts" else total / UNROLL
            np.testing.assert_allclose(value, want, **CLOSE)
    # One outer update, at the end; averages advance with each inner one.
    assert metrics["outer/updates"] == 1
    close(state.ema.autoencoder, alone.ema.autoencoder)
    assert optax.tree.norm(jax.tree.map(jnp.subtract, state.ema.codebook, alone.ema.codebook)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_the_codebook_moves_by_the_derivative_through_all_updates(parts):
    problem, (inner, outer), state = problem_of(parts), batches_of(), start()
    theta, phi, _ = state.params

    def outer_value(phi):
        at, opt_state = theta, state.opt_state.autoencoder
        for k, images in enumerate(inner):
            then = state.replace(step=state.step + k)
            loss = make_loss(problem, then, (), "encoder")
            batch = cut(images, level_keys(then)[0], parts)
            _, gradient = value_and_gradient(loss, at, phi, batch)
            at, opt_state = take_step(problem.optimizers.autoencoder, gradient, opt_state, at)
        batch = cut(outer, level_keys(then)[1], parts)
        return value_and_gradient(loss, at, phi, batch)[0][0]

    want = tiny.jit(jax.grad(outer_value))(phi)
    after, metrics = unrolled(parts)
    got = jax.tree.map(jnp.subtract, phi, after.params.codebook)
    close(got, want, rtol=1e-8, atol=1e-11)
    # It would not be without the earlier updates.
    assert metrics["outer/indirect_norm"] > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("straight_through", ["encoder", "encoder-and-codewords-inside"])
def test_it_is_exact_with_a_discriminator_that_learns_on_the_way(straight_through):
    """What the discriminator becomes is an array to the derivative, as the losses meet it."""
    optimizers = OPTIMIZERS._replace(discriminator=tiny.make_adam(1e-2))
    problem = tiny_gan.make_problem(optimizers, loss="non-saturating")
    state, (inner, outer) = tiny_gan.make_state(problem), batches_of(2)
    theta, phi, _ = state.params
    kinds = mq.STRAIGHT_THROUGH[straight_through]
    alone = tiny.jit(mq.make_inner_step(problem, straight_through=straight_through))
    states = [state, alone(state, inner[0], None, tiny_gan.FROZEN)[0]]

    def outer_value(phi):
        at, opt_state = theta, state.opt_state.autoencoder
        for then, images in zip(states, inner, strict=True):
            loss = make_loss(problem, then, tiny_gan.FROZEN, kinds[0])
            batch = cut(images, level_keys(then)[0], 1)
            _, gradient = value_and_gradient(loss, at, phi, batch)
            at, opt_state = take_step(optimizers.autoencoder, gradient, opt_state, at)
        loss = make_loss(problem, then, tiny_gan.FROZEN, kinds[1])
        return value_and_gradient(loss, at, phi, cut(outer, level_keys(then)[1], 1))[0][0]

    want = tiny.jit(jax.grad(outer_value))(phi)
    step = unrolling.make_unrolled_step(problem, straight_through=straight_through)
    after, metrics = tiny.jit(step)(state, inner, outer, tiny_gan.FROZEN)
    close(jax.tree.map(jnp.subtract, phi, after.params.codebook), want, rtol=1e-7, atol=1e-10)
    assert metrics["outer/indirect_norm"] > 1e-6
    # Two steps of its own.
    whole = alone(states[1], inner[1], None, tiny_gan.FROZEN)[0]
    close(after.params.discriminator, whole.params.discriminator)


def test_a_step_that_is_rolled_back_takes_its_inner_update_with_the_new_codebook():
    """All of the step before is kept but theta: as if the codebook had moved beforehand."""
    ahead, ahead_metrics = unrolled(n=1)
    state, metrics = unrolled(n=1, rolled_back=True)
    close(
        (state.params.codebook, state.opt_state.codebook),
        (ahead.params.codebook, ahead.opt_state.codebook),
    )
    before = start()
    moved = before.replace(params=before.params._replace(codebook=ahead.params.codebook))
    inner, _ = batches_of(1)
    want, again = tiny.jit(mq.make_inner_step(problem_of()))(moved, inner[0], None)
    close(state, want)
    outer = {name: ahead_metrics[name] for name in ahead_metrics if name.startswith("outer/")}
    close(metrics, outer | again)
    gap = jax.tree.map(jnp.subtract, state.params.autoencoder, ahead.params.autoencoder)
    assert state.step == 1 and optax.tree.norm(gap) > 1e-6


def test_a_discriminator_is_rolled_back_with_theta_and_learns_once():
    """Its step is taken again on what the auto-encoder makes with the new codebook."""
    optimizers = OPTIMIZERS._replace(discriminator=tiny.make_adam(1e-2))
    problem = tiny_gan.make_problem(optimizers)
    state, ((inner,), outer) = tiny_gan.make_state(problem), batches_of(1)
    step = mq.make_train_step(problem, hypergradient="none", straight_through="encoder")
    again = unrolling.make_rolled_back_step(problem, step, straight_through="encoder")

    given = state, inner, outer, tiny_gan.FROZEN
    ahead, got = tiny.jit(lambda *given: (step(*given)[0], again(*given)[0]))(*given)
    close(got.params.codebook, ahead.params.codebook)
    moved = state.replace(params=state.params._replace(codebook=ahead.params.codebook))
    want, _ = tiny.jit(mq.make_inner_step(problem))(moved, inner, None, tiny_gan.FROZEN)
    for name in ("params", "opt_state"):
        close(getattr(got, name).discriminator, getattr(want, name).discriminator)
        close(getattr(got, name).autoencoder, getattr(want, name).autoencoder)
    gap = jax.tree.map(jnp.subtract, got.params.discriminator, ahead.params.discriminator)
    assert optax.tree.norm(gap) > 1e-6


@pytest.mark.slow
def test_several_updates_are_rolled_back_together():
    ahead, _ = unrolled()
    state, metrics = unrolled(rolled_back=True)
    close(state.params.codebook, ahead.params.codebook)
    moved = start()
    moved = moved.replace(params=moved.params._replace(codebook=ahead.params.codebook))
    step = tiny.jit(mq.make_inner_step(problem_of()))
    for images in batches_of()[0]:
        moved, _ = step(moved, images, None)
    close(state, moved)
    assert metrics["inner/code_counts"].sum() == UNROLL * 4 * 4 * 4
