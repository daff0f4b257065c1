"""The hyper-gradient: closed forms on quadratics, and what Adam does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import make_adam, make_sgd

from mq_jax.algorithm import bilevel
from mq_jax.algorithm.bilevel import KINDS, hypergradient
from mq_jax.algorithm.implicit import Implicit

EXACT = ("unrolled", "unrolled-reverse")
RATE = 0.3


pytestmark = pytest.mark.usefixtures("float64")


def matrix(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


# Positive definite, so that conjugate gradients come to their end.
A = matrix(0, 3, 3) @ matrix(0, 3, 3).T + np.eye(3)
B, M = matrix(1, 3, 2), matrix(2, 3, 2)
TARGET, THETA, PHI = matrix(3, 3), matrix(4, 3), matrix(5, 2)


# As many iterations as dimensions, after which conjugate gradients are exact.
IMPLICIT = Implicit(terms=3, damping=0.2, rate=0.05)
DAMPED = A + IMPLICIT.damping * np.eye(3)
SERIES = [
    IMPLICIT.rate * np.linalg.matrix_power(np.eye(3) - IMPLICIT.rate * DAMPED, k) for k in range(3)
]
# What stands between v and the mixed derivative, up to its sign.
RESPONSES = {
    **dict.fromkeys(EXACT, RATE * np.eye(3)),
    "sama": RATE * np.eye(3),
    # No learning rate, no optimizer; the difference is exact on a quadratic.
    "identity": np.eye(3),
    "finite-difference": np.eye(3),
    "neumann": sum(SERIES),
    "cg": np.linalg.inv(DAMPED),
    "none": np.zeros((3, 3)),
}

# Weights of the loss of each part of a batch, one on average.
WHOLE = np.ones(1)
PARTS = np.array([0.5, 1.75, 0.75])


def inner_loss(theta, phi, weight):
    """(theta.A.theta / 2 + theta.B.phi) weight."""
    t = theta["t"]
    return weight * (t @ A @ t / 2 + t @ B @ phi[0]), {"theta": t}


def outer_loss(theta, phi, weight):
    """(|theta - target|^2 / 2 + theta.M.phi + |phi|^2 / 2) weight."""
    t = theta["t"]
    loss = jnp.sum((t - TARGET) ** 2) / 2 + t @ M @ phi[0] + jnp.sum(phi[0] ** 2) / 2
    return weight * loss, {"theta": t}


def solve(optimizer, parts=WHOLE, **kwargs):
    theta, state = {"t": jnp.asarray(THETA)}, optimizer.init({"t": jnp.asarray(THETA)})
    batches = parts, parts[::-1]
    settings = {"implicit": IMPLICIT, **kwargs}
    return hypergradient(
        inner_loss, outer_loss, optimizer, theta, state, (PHI,), batches, **settings
    )


@pytest.mark.parametrize("parts", [WHOLE, PARTS], ids=["whole", "accumulated"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_parts_have_their_closed_form_on_a_quadratic(kind, parts):
    result = solve(make_sgd(RATE), parts, kind=kind)

    gradient = A @ THETA + B @ PHI
    theta = THETA - RATE * gradient
    v = theta - TARGET + M @ PHI
    np.testing.assert_allclose(result.inner_gradient["t"], gradient, rtol=1e-12)
    np.testing.assert_allclose(result.theta["t"], theta, rtol=1e-12)
    np.testing.assert_allclose(result.direct[0], M.T @ theta + PHI, rtol=1e-12)
    np.testing.assert_allclose(result.indirect[0], -B.T @ RESPONSES[kind] @ v, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_aux_come_back_from_the_points_they_were_taken_at(kind):
    result = solve(make_sgd(RATE), kind=kind)
    for (loss, aux), (expected, expected_aux) in (
        (result.inner, inner_loss({"t": THETA}, (PHI,), 1.0)),
        (result.outer, outer_loss(result.theta, (PHI,), 1.0)),
    ):
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        np.testing.assert_allclose(aux["theta"], expected_aux["theta"][None], rtol=1e-12)


def test_accumulated_parts_stack_their_aux_and_average_their_losses():
    (loss, aux), gradient = bilevel.value_and_gradient(
        lambda theta, phi, part: (theta * part**2, part), 3.0, None, jnp.arange(4.0)
    )
    np.testing.assert_allclose([loss, gradient], [3 * 3.5, 3.5], rtol=1e-12)
    np.testing.assert_array_equal(aux, np.arange(4))


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_state_is_that_of_a_plain_update(kind):
    adam, theta = make_adam(RATE), {"t": jnp.asarray(THETA)}
    _, expected = adam.update({"t": A @ THETA + B @ PHI}, adam.init(theta), theta)
    for got, want in zip(
        jax.tree.leaves(solve(adam, kind=kind).opt_state), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_probes_stand_on_either_side_of_the_new_theta():
    result = solve(make_sgd(RATE), kind="finite-difference")
    plus, minus = (np.asarray(aux["theta"])[0] for aux in result.probes)
    v = result.theta["t"] - TARGET + M @ PHI
    np.testing.assert_allclose((plus + minus) / 2, result.theta["t"], rtol=1e-12)
    np.testing.assert_allclose((plus - minus) / 2, bilevel.PROBE * v / np.linalg.norm(v))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "finite-difference"])
def test_only_the_finite_difference_has_probes(kind):
    assert solve(make_sgd(RATE), kind=kind).probes is None


def test_the_finite_difference_vanishes_where_the_outer_loss_ignores_theta():
    theta = {"t": jnp.asarray(THETA)}
    sgd = make_sgd(RATE)
    result = hypergradient(
        inner_loss,
        lambda theta, phi, part: (jnp.sum(phi[0] ** 2), None),
        sgd,
        theta,
        sgd.init(theta),
        (PHI,),
        (WHOLE, WHOLE),
        kind="finite-difference",
    )
    np.testing.assert_array_equal(result.indirect[0], np.zeros(2))


@pytest.mark.parametrize("kind", ["darts", "joint", ""])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match=f"kind is '{kind}'; expected one of"):
        solve(make_sgd(RATE), kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_residual_of_the_implicit_kinds_is_that_of_their_system(kind):
    result = solve(make_sgd(RATE), kind=kind)
    v = result.theta["t"] - TARGET + M @ PHI
    # Of the series the last term is left out: it is what that term corrects.
    u = {"neumann": sum(SERIES[:-1]) @ v, "cg": np.linalg.solve(DAMPED, v)}
    if kind not in u:
        assert result.residual is None
        return
    want = np.linalg.norm(v - DAMPED @ u[kind]) / np.linalg.norm(v)
    np.testing.assert_allclose(result.residual, want, rtol=1e-10, atol=1e-12)


def test_sama_differs_from_the_exact_derivative_in_where_the_mixed_one_is_taken():
    """A cubic coupling, theta^2 B phi / 2: its mixed derivative is theta B, of theta' for SAMA."""
    adam, theta = make_adam(RATE, eps=1e-2), {"t": jnp.asarray(THETA)}

    def cubic(theta, phi, part):
        return theta["t"] ** 2 @ B @ phi[0] / 2, None

    results = {
        kind: hypergradient(
            *(cubic, outer_loss, adam, theta, adam.init(theta), (PHI,), (WHOLE, WHOLE)), kind=kind
        )
        for kind in ("unrolled", "sama", "identity")
    }
    after = results["sama"].theta["t"]
    v, gradient = after - TARGET + M @ PHI, THETA * (B @ PHI)
    u = adam_slope(gradient, eps=1e-2, eps_root=1e-16) * v
    wants = {"unrolled": THETA * u, "sama": after * u, "identity": -after * v}
    for kind, want in wants.items():
        np.testing.assert_allclose(results[kind].indirect[0], B.T @ want, rtol=1e-9)


def adam_slope(g, *, eps, eps_root):
    """The derivative of Adam's first update, -rate * g / (sqrt(g^2 + eps_root) + eps)."""
    root = np.sqrt(g**2 + eps_root)
    return -RATE * (root + eps - g**2 / root) / (root + eps) ** 2


@pytest.mark.parametrize("kind", bilevel.THROUGH_OPTIMIZER)
@pytest.mark.parametrize("pullback_eps", [None, 1e-1, 10.0])
def test_a_pullback_optimizer_changes_the_indirect_part_and_nothing_else(kind, pullback_eps):
    eps, eps_root = 1e-3, 1e-2
    adam = make_adam(RATE, eps=eps, eps_root=eps_root)
    plain = solve(adam, kind=kind)
    pullback = pullback_eps and make_adam(RATE, eps=pullback_eps, eps_root=eps_root)
    result = solve(adam, kind=kind, pullback_optimizer=pullback)

    for field in ("theta", "opt_state", "inner", "outer", "inner_gradient", "direct"):
        got, want = (jax.tree.leaves(getattr(r, field)) for r in (result, plain))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)

    gradient = A @ THETA + B @ PHI
    v = plain.theta["t"] - TARGET + M @ PHI
    slope = adam_slope(gradient, eps=pullback_eps or eps, eps_root=eps_root)
    np.testing.assert_allclose(result.indirect[0], B.T @ (slope * v), rtol=1e-9)


@pytest.mark.parametrize("kind", bilevel.THROUGH_OPTIMIZER)
@pytest.mark.parametrize("eps_root, finite", [(1e-16, True), (0.0, False)])
def test_a_zero_gradient_in_adam_needs_eps_root(kind, eps_root, finite):
    adam = make_adam(RATE, eps_root=eps_root)
    theta, phi = jnp.ones(2), jnp.asarray([0.0, 1.0])
    # The gradient over theta is phi: exactly zero in its first place.
    result = hypergradient(
        lambda theta, phi, part: (theta @ phi, None),
        lambda theta, phi, part: (jnp.sum(theta**2), None),
        adam,
        theta,
        adam.init(theta),
        phi,
        (WHOLE, WHOLE),
        kind=kind,
    )
    assert np.isfinite(result.theta).all()
    assert np.isfinite(result.indirect).tolist() == [finite, True]


@pytest.mark.parametrize("kind", EXACT)
def test_the_derivative_goes_through_the_whole_optimizer(kind):
    """Momentum, Adam and clipping chained: against central differences."""
    optimizer = make_adam(RATE, clip=0.5, weight_decay=0.1)
    theta = {"t": jnp.asarray(THETA)}
    state = optimizer.init(theta)
    for scale in (1.0, -0.3, 0.7):
        _, state = optimizer.update({"t": scale * matrix(6, 3)}, state, theta)

    def outer_value(phi):
        gradient = {"t": A @ THETA + B @ phi}
        updates, _ = optimizer.update(gradient, state, theta)
        return outer_loss(optax.apply_updates(theta, updates), (PHI,), 1.0)[0]

    h = 1e-5
    numeric = [
        (outer_value(PHI + h * unit) - outer_value(PHI - h * unit)) / (2 * h) for unit in np.eye(2)
    ]
    batches = (WHOLE, WHOLE)
    result = hypergradient(
        inner_loss, outer_loss, optimizer, theta, state, (PHI,), batches, kind=kind
    )
    np.testing.assert_allclose(result.indirect[0], numeric, rtol=1e-7)
