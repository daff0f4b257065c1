"""The hyper-gradient through several inner updates: against reverse over reverse, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mq_jax.algorithm import trajectory
from mq_jax.algorithm.accumulation import each
from mq_jax.algorithm.bilevel import take_step, value_and_gradient

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 4))
THETA, PHI = {"t": RNG.normal(size=3), "s": RNG.normal(size=4)}, (RNG.normal(size=4),)
OPTIMIZERS = {
    "sgd": tiny.make_sgd(0.02),
    "momentum": tiny.make_sgd(0.02, momentum=0.5),
    "adam": tiny.make_adam(0.1, eps=1e-3),
    # Of its result the beginning, too, asks for more than the identity.
    "adam, decayed and clipped": tiny.make_adam(0.1, eps=1e-3, weight_decay=0.2, clip=0.5),
}
PARTS = 2


def loss_of(context):
    """A loss that couples theta and phi in every order; each update has a constant of its own."""
    constant, batch = context

    def loss(theta, phi, part):
        felt = jnp.tanh(theta["t"] @ W * phi[0] + constant) + theta["s"] * part
        return jnp.sum(felt**2) + jnp.sum(theta["t"] ** 4 * part[:3]) / 4, ()

    return loss, batch


def contexts(n):
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 4)), rng.normal(size=(n, PARTS, 4))


def outer_loss(theta, phi):
    return jnp.sum(jnp.sin(theta["t"])) + jnp.sum(theta["s"] ** 2 * phi[0])


def walk(optimizer, n, phi):
    """theta after n updates, and each as it was taken."""
    theta, opt_state, taken = jax.tree.map(jnp.asarray, THETA), None, []
    opt_state = optimizer.init(theta)
    for k in range(n):
        context = jax.tree.map(lambda leaf, k=k: leaf[k], contexts(n))
        loss, batch = loss_of(context)
        _, gradient = value_and_gradient(loss, theta, phi, batch)
        taken.append(trajectory.Taken(theta, opt_state, gradient, context))
        theta, opt_state = take_step(optimizer, gradient, opt_state, theta)
    return theta, taken


# Each program compiles for a second: by default one has all that the others have.
WHOLE = ("adam, decayed and clipped", 3)


@pytest.mark.parametrize(
    "name, n",
    [
        pytest.param(name, n, marks=() if (name, n) == WHOLE else pytest.mark.slow)
        for name in OPTIMIZERS
        for n in (2, 3, 5)
    ],
)
def test_the_indirect_part_is_the_derivative_through_all_updates(name, n):
    optimizer = OPTIMIZERS[name]

    @tiny.jit
    def split(phi):
        theta, (*earlier, last) = walk(optimizer, n, phi)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *earlier)
        v = jax.grad(outer_loss)(theta, phi)
        return trajectory.indirect_part(stacked, last, loss_of, optimizer, phi, v)

    literal = tiny.jit(jax.grad(lambda phi: outer_loss(walk(optimizer, n, phi)[0], PHI)))
    (got,), (want,) = split(PHI), literal(PHI)
    assert np.linalg.norm(want) > 1e-3
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n, written_out", [(2, False), (3, False), (4, False), (4, True)])
def test_on_a_quadratic_it_has_its_closed_form(n, written_out):
    """theta' = theta - r (A theta + B phi): a geometric sum of (I - r A)^k."""
    rate, a, b = 0.1, RNG.normal(size=(3, 3)), RNG.normal(size=(3, 2))
    a = a @ a.T
    optimizer, phi, v = tiny.make_sgd(rate), jnp.ones(2), RNG.normal(size=3)

    def loss_of(context):
        return lambda theta, phi, part: (theta @ a @ theta / 2 + theta @ b @ phi, ()), context

    theta = jnp.asarray(RNG.normal(size=(n, 3)))
    taken = trajectory.Taken(theta, optimizer.init(theta[0]), theta, jnp.zeros((n, 1)))
    # SGD has no state but a count.
    taken = taken._replace(opt_state=jax.tree.map(lambda x: jnp.zeros(n, x.dtype), taken.opt_state))
    earlier = jax.tree.map(lambda leaf: leaf[:-1], taken)
    last = jax.tree.map(lambda leaf: leaf[-1], taken)
    got = trajectory.indirect_part(
        earlier, last, loss_of, optimizer, phi, v, written_out=written_out
    )
    step = np.eye(3) - rate * a
    powers = sum(np.linalg.matrix_power(step, k) for k in range(n))
    np.testing.assert_allclose(got, -rate * b.T @ powers @ v, rtol=1e-10)


@pytest.mark.parametrize(
    "n, written_out, loops", [(1, False, False), (3, False, True), (3, True, False)]
)
def test_a_loop_of_one_is_none_and_one_that_is_written_out_neither(n, written_out, loops):
    count = functools.partial(each, lambda carry, x: (carry + x, carry), written_out=written_out)
    program = jax.jit(count).lower(jnp.zeros(()), jnp.arange(float(n))).as_text()
    assert ("stablehlo.while" in program) == loops
    carry, outs = count(jnp.zeros(()), jnp.arange(1.0, n + 1))
    assert carry == n * (n + 1) / 2 and outs.shape == (n,)
