"""The outer gradient alone: that by which the step of its kind moves the codebook."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from mq_jax.algorithm import bilevel, mq, outer, pipelined
from mq_jax.algorithm.state import Parts

pytestmark = pytest.mark.usefixtures("float64")

# At rate 1, SGD moves the codebook by the gradient.
OPTIMIZERS = Parts(tiny.make_adam(1e-2), optax.sgd(1.0))
BATCHES = tiny.make_images(4, seed=1), tiny.make_images(4, seed=2)
FAMILY = ("sama", "identity", "neumann", "unrolled-reverse")


def started():
    problem = mq.Problem(tiny.make_objective(), OPTIMIZERS)
    return problem, tiny.make_state(problem.objective, OPTIMIZERS)


def assert_moved_by(gradient, state, after, metrics):
    moved = jax.tree.map(jnp.subtract, state.params.codebook, after.params.codebook)
    whole = jax.tree.map(jnp.add, gradient.direct, gradient.indirect)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-13)
    assert gradient.metrics.keys() <= metrics.keys()
    for name, value in gradient.metrics.items():
        np.testing.assert_allclose(value, metrics[name], rtol=1e-8, err_msg=name)
    norms = [optax.tree.norm(part) for part in gradient[:2]]
    np.testing.assert_allclose(norms[0], metrics["outer/direct_norm"], rtol=1e-8)
    np.testing.assert_allclose(norms[1], metrics["outer/indirect_norm"], rtol=1e-8)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow if k in FAMILY else ()) for k in bilevel.KINDS],
)
def test_the_gradient_of_a_kind_is_what_its_step_moves_the_codebook_by(kind):
    problem, state = started()
    settings = {"hypergradient": kind, "straight_through": "encoder"}
    gradient = tiny.jit(outer.make_outer_gradient(problem, **settings))(state, *BATCHES)
    after, metrics = tiny.jit(mq.make_train_step(problem, **settings))(state, *BATCHES)
    assert_moved_by(gradient, state, after, metrics)
    assert (optax.tree.norm(gradient.indirect) == 0) == (kind == "none")


@pytest.mark.parametrize("straight_through", ["encoder", "encoder-and-codewords-inside"])
def test_the_pipelined_gradient_is_that_of_the_second_step_of_a_run(straight_through):
    problem, state = started()
    estimator = {"straight_through": straight_through}
    step = tiny.jit(pipelined.make_pipelined_step(problem, **estimator))
    first, _ = step(pipelined.with_past(state, BATCHES[0]), BATCHES[0], None)
    after, metrics = step(first, BATCHES[1], None)
    make = functools.partial(outer.make_outer_gradient, problem, hypergradient="pipelined")
    gradient = tiny.jit(make(**estimator))(state, *BATCHES)
    assert_moved_by(gradient, first, after, metrics)
    assert optax.tree.norm(gradient.indirect) > 0
