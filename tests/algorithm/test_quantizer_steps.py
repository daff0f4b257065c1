"""Train steps with every kind of quantizer: its state, its parameters and its optimizer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from kinds import DIM, KINDS, SIZE

from mq_jax.algorithm import mq
from mq_jax.algorithm.state import Parts

OPTIMIZERS = Parts(tiny.make_adam(1e-2), tiny.make_adam(1e-2))
IMAGES = 4
CODES = IMAGES * 4 * 4  # of a batch

# With a state, and cheap to compile; the others take a second or two each.
QUICK = ("ema restart", "fsq")
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in KINDS]
)


def quantizer_of(kind):
    """Of the table of kinds, but that an encoder gives as many channels as a decoder takes."""
    quantizer = KINDS[kind]()
    return dataclasses.replace(quantizer, channels=DIM) if kind == "gumbel" else quantizer


def problem_of(kind, parts=1):
    objective = tiny.with_quantizer(tiny.make_objective(), quantizer_of(kind))
    return mq.Problem(objective, OPTIMIZERS, parts=parts)


@functools.cache
def made(kind, hypergradient="joint", parts=1):
    """(train step, state at step 0, traces), the step jitted; its traces are counted."""
    problem, traces = problem_of(kind, parts), []
    if hypergradient == "joint":
        step = mq.make_joint_step(problem, straight_through="encoder")
    else:
        step = mq.make_train_step(problem, hypergradient=hypergradient, straight_through="encoder")

    def traced(*arguments):
        traces.append(None)
        return step(*arguments)

    return tiny.jit(traced), tiny.make_state(problem.objective, OPTIMIZERS), traces


def batches(seed=0):
    return [tiny.make_images(IMAGES, seed=2 * seed + level) for level in range(2)]


@every_kind
def test_thirty_steps_are_one_program_and_stay_finite(kind):
    step, state, traces = made(kind)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    for number in range(30):
        state, metrics = step(state, *batches(number))
    assert len(traces) == 1
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == shapes
    assert all(np.isfinite(value).all() for value in metrics.values())
    for tree in (state.params, state.quantizer):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    assert metrics["inner/code_counts"].sum() == CODES * max(KINDS[kind]().depth, 1)


@pytest.mark.parametrize("kind", ["ema restart", "usage restart", "gumbel", "groups of cvq"])
def test_moving_averages_of_the_weights_keep_counts_as_counts(kind):
    problem = problem_of(kind)._replace(ema_decay=0.9)
    step = mq.make_joint_step(problem, straight_through="encoder")
    state = tiny.make_state(problem.objective, OPTIMIZERS)
    state = state.replace(ema=state.raw)
    after, _ = jax.eval_shape(step, state, *batches())
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_the_state_advances_once_a_step_by_the_whole_batch(parts):
    """Whatever the number of parts: of each kind a sum that a second advance would change."""
    step, state, _ = made("ema", parts=parts)
    after, _ = step(state, *batches())
    expected = 0.99 * SIZE + 0.01 * CODES
    np.testing.assert_allclose(after.quantizer["counts"].sum(), expected, rtol=1e-6)
    step, state, _ = made("cvq", parts=parts)
    after, _ = step(state, *batches())
    np.testing.assert_allclose(after.quantizer[0].sum(), 0.01, rtol=1e-5)
    step, state, _ = made("gumbel", parts=parts)
    after, _ = step(state, *batches())
    assert jax.tree.leaves(after.quantizer) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["l2", "gumbel", "cvq"])
def test_two_levels_train_any_codebook_through_the_inner_step(kind):
    problem = problem_of(kind)
    # Equal weights, without which no term has the right mixed derivative.
    if kind == "cvq":
        quantizer = dataclasses.replace(problem.objective.quantizer, commitment=1.0)
        problem = problem._replace(objective=problem.objective._replace(quantizer=quantizer))
    step = tiny.jit(
        mq.make_train_step(problem, hypergradient="unrolled", straight_through="encoder")
    )
    state = tiny.make_state(problem.objective, OPTIMIZERS)
    after, metrics = step(state, *batches())
    assert metrics["outer/indirect_norm"] > 0 and metrics["outer/direct_norm"] > 0
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, state.params)
    assert all(jax.tree.leaves(moved.codebook))
    # One advance, of the inner pass: the outer one has other images.
    first = jax.tree.leaves(after.quantizer)
    again, _ = step(state, batches()[0], batches(9)[1])
    for one, two in zip(first, jax.tree.leaves(again.quantizer), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_moments_of_codewords_that_were_overwritten_start_anew():
    step, state, _ = made("cvq")
    adam, *rest = state.opt_state.codebook
    ones = jax.tree.map(jnp.ones_like, (adam.mu, adam.nu))
    moments = adam._replace(mu=ones[0], nu=ones[1])
    opt_state = state.opt_state._replace(codebook=(moments, *rest))
    after, metrics = step(state.replace(opt_state=opt_state), *batches())
    idle = np.asarray(metrics["inner/code_counts"]) == 0
    assert 0 < idle.sum() < SIZE
    adam, *_ = after.opt_state.codebook
    for moment in (adam.mu["embedding"], adam.nu["embedding"]):
        assert (moment[idle] == 0).all() and (moment[~idle] != 0).all()
    assert adam.count == 1
    # An idle codeword lies where an encoding was, to the thousandth.
    before = state.params.codebook["embedding"]
    assert optax.tree.norm(after.params.codebook["embedding"][idle] - before[idle]) > 0
