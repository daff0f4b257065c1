"""Systems with a symmetric matrix, solved by products with it: against dense linear algebra."""

import jax.numpy as jnp
import numpy as np
import pytest

from mq_jax.algorithm.implicit import SOLVERS, Implicit, solve

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
SIZE = 6
BASIS = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0]
V = RNG.normal(size=SIZE)


def solved(kind, eigenvalues, v=V, **settings):
    """(u, residual) with a matrix of these eigenvalues, on a tree of two leaves."""
    matrix = BASIS @ np.diag(eigenvalues) @ BASIS.T

    def product(p):
        q = matrix @ jnp.concatenate([p["a"], p["b"]])
        return {"a": q[:2], "b": q[2:]}

    u, residual = solve(kind, product, {"a": v[:2], "b": v[2:]}, Implicit(**settings))
    return np.concatenate([u["a"], u["b"]]), residual


def dense(eigenvalues, damping):
    return BASIS @ np.diag(1 / (np.asarray(eigenvalues) + damping)) @ BASIS.T @ V


RISING = np.linspace(0.0, 3.0, SIZE)


def test_conjugate_gradients_end_after_as_many_iterations_as_there_are_eigenvalues():
    values = np.repeat([0.5, 2.0], 3)
    for terms, ends in ((1, False), (2, True), (5, True)):
        u, residual = solved("cg", values, terms=terms, damping=0.1)
        assert np.allclose(u, dense(values, 0.1), rtol=1e-10) == ends == (residual < 1e-10)


def test_the_series_converges_on_a_positive_matrix_by_its_contraction():
    """Each term shrinks the error along an eigenvector by 1 - alpha (eigenvalue + damping)."""
    for terms in (1, 4, 40):
        u, _ = solved("neumann", RISING, terms=terms, damping=0.5, rate=0.3)
        shrunk = BASIS @ np.diag((1 - 0.3 * (RISING + 0.5)) ** terms) @ BASIS.T
        want = dense(RISING, 0.5) - shrunk @ dense(RISING, 0.5)
        np.testing.assert_allclose(u, want, rtol=1e-10)


def test_both_agree_with_the_dense_solution_once_they_have_terms_enough():
    for kind, terms in (("neumann", 400), ("cg", SIZE)):
        u, residual = solved(kind, RISING, terms=terms, damping=0.2, rate=0.3)
        np.testing.assert_allclose(u, dense(RISING, 0.2), rtol=1e-8)
        assert residual < 1e-8


def test_a_series_whose_rate_is_too_large_says_so_by_its_residual():
    _, residual = solved("neumann", RISING, terms=20, damping=0.0, rate=1.0)
    assert residual > 1e3


@pytest.mark.parametrize("eigenvalues", [RISING - 1.5, -RISING - 0.1])
def test_conjugate_gradients_stop_at_negative_curvature_and_never_make_it_worse(eigenvalues):
    """Each iterate before lowers u.A.u / 2 - u.v, which has no minimum here."""
    matrix = BASIS @ np.diag(eigenvalues) @ BASIS.T
    values = []
    for terms in range(1, 12):
        u, residual = solved("cg", eigenvalues, terms=terms, damping=0.0)
        assert np.isfinite(u).all() and np.isfinite(residual)
        np.testing.assert_allclose(
            residual, np.linalg.norm(V - matrix @ u) / np.linalg.norm(V), rtol=1e-8
        )
        values.append(u @ matrix @ u / 2 - u @ V)
    assert (np.diff([0.0, *values]) <= 1e-12).all()
    # It stands still from some iteration on.
    assert values[-1] == values[-2]


@pytest.mark.parametrize("kind", SOLVERS)
def test_nothing_is_solved_by_nothing(kind):
    u, residual = solved(kind, RISING, v=np.zeros(SIZE))
    np.testing.assert_array_equal(u, np.zeros(SIZE))
    assert residual == 0


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="kind is 'lu'; expected one of"):
        solved("lu", RISING)
