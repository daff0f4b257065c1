"""Solutions of (H + damping I) u = v by products with H alone, for implicit hyper-gradients.

Where theta' were a minimum of L_in, the implicit function theorem gives

    d theta' / d phi = -H^-1 d/dphi grad_theta L_in,   H = d^2 L_in / dtheta^2 at theta'

so that the indirect part is -d/dphi of the derivative of L_in along u = H^-1 v. This file knows
pytrees, nothing of losses.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any

SOLVERS = ("neumann", "cg")


class Implicit(NamedTuple):
    """How far a system is solved.

    Attributes:
      terms: of the Neumann series, one product with H fewer; iterations of conjugate gradients,
        a product each. At least 1.
      damping: added to H's eigenvalues, at least 0; of it the solution is at most v / damping
        where H has no negative ones.
      rate: alpha of the Neumann series, positive; it converges where alpha times the largest
        eigenvalue of H + damping I stays below 2 and no eigenvalue is negative.
    """

    terms: int = 5
    damping: float = 0.01
    rate: float = 0.1


def solve(
    kind: str, product: Callable[[PyTree], PyTree], v: PyTree, settings: Implicit
) -> tuple[PyTree, jax.Array]:
    """u with (H + damping I) u close to v.

    Args:
      kind: one of SOLVERS.
      product: p -> H p, H symmetric.
      v: the right side.
      settings: how far.

    Returns:
      (u, |v - (H + damping I) u| / |v|); of `neumann` the ratio is of u without its last term.

    Raises:
      ValueError: for a kind that is not among SOLVERS.
    """
    if kind not in SOLVERS:
        raise ValueError(f"kind is {kind!r}; expected one of {SOLVERS}.")

    def damped(p):
        return jax.tree.map(lambda h, x: h + settings.damping * x, product(p), p)

    u, residual = (_neumann if kind == "neumann" else _conjugate_gradients)(damped, v, settings)
    # The floor has 0, not 0/0, where v vanishes.
    return u, residual / jnp.maximum(optax.tree.norm(v), 1e-30)


def _neumann(product, v, settings):
    """alpha sum_k (I - alpha A)^k v (Lorraine et al., 2020); its last term is v - A (the rest)."""
    term = total = v
    # Not a loop of XLA's: its CPU backend runs convolutions in one far slower.
    for _ in range(settings.terms - 1):
        term = jax.tree.map(lambda t, p: t - settings.rate * p, term, product(term))
        total = jax.tree.map(jnp.add, total, term)
    return jax.tree.map(lambda t: settings.rate * t, total), optax.tree.norm(term)


def _conjugate_gradients(product, v, settings):
    """Conjugate gradients from zero, stopped at a direction in which A does not curve upwards.

    Ours, where JAX's goes on: a net's Hessian has negative eigenvalues, on which the plain
    recursion divides by what may vanish (Steihaug's remedy); and a fixed number of iterations,
    without a loop, costs every step the same.
    """
    u, residual, direction = jax.tree.map(jnp.zeros_like, v), v, v
    square = optax.tree.vdot(v, v)
    goes_on = square > 0
    for _ in range(settings.terms):
        curved = product(direction)
        curvature = optax.tree.vdot(direction, curved)
        goes_on &= (curvature > 0) & (square > 0)
        length = jnp.where(goes_on, square / jnp.where(goes_on, curvature, 1), 0)
        u = jax.tree.map(lambda x, p, a=length: x + a * p, u, direction)
        residual = jax.tree.map(lambda r, q, a=length: r - a * q, residual, curved)
        reached = optax.tree.vdot(residual, residual)
        turn = jnp.where(goes_on, reached / jnp.where(goes_on, square, 1), 0)
        direction = jax.tree.map(lambda r, p, b=turn: r + b * p, residual, direction)
        square = reached
    return u, jnp.sqrt(square)
