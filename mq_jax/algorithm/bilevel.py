"""The hyper-gradient: how the outer loss changes through one inner optimizer step.

    inner:  theta' = theta + U(g),  g = grad_theta L_in(theta, phi)     U: one Optax update
    outer:  d/dphi L_out(theta'(phi), phi) = direct + indirect

The direct part differentiates the second argument of L_out at theta'; the indirect part, the
hyper-gradient proper, goes through theta'. Each loss is a mean over parts of a batch, of which
one at a time is in memory (gradient accumulation). This file knows pytrees and Optax, nothing
of vector quantization.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mq_jax.algorithm.accumulation import mean_over_parts
from mq_jax.algorithm.implicit import SOLVERS, Implicit, solve

PyTree = Any
Loss = Callable[[PyTree, PyTree, PyTree], tuple[jax.Array, Any]]

# Those whose derivative passes the inner optimizer.
THROUGH_OPTIMIZER = ("unrolled", "unrolled-reverse", "sama")
KINDS = (*THROUGH_OPTIMIZER, "identity", *SOLVERS, "finite-difference", "none")

# The scale of the finite difference in the authors' code: eps = PROBE / ||v||.
PROBE = 0.01


class Bilevel(NamedTuple):
    """The inner step and the outer gradient, with everything met on the way.

    The aux of a loss has a leading axis over the parts of the batch.

    Attributes:
      theta: theta', the inner parameters after the inner step.
      opt_state: the inner optimizer's state after it.
      inner: (L_in(theta, phi), its aux).
      outer: (L_out(theta', phi), its aux).
      inner_gradient: grad_theta L_in(theta, phi).
      direct: the direct part of the outer gradient, a tree like phi.
      indirect: the indirect part, a tree like phi; zeros for the kind `none`.
      probes: the aux of L_in at theta' + eps v and theta' - eps v for `finite-difference`,
        else None.
      residual: of `neumann` and `cg` what implicit.solve returns of it, else None.
    """

    theta: PyTree
    opt_state: PyTree
    inner: tuple[jax.Array, Any]
    outer: tuple[jax.Array, Any]
    inner_gradient: PyTree
    direct: PyTree
    indirect: PyTree
    probes: tuple[Any, Any] | None = None
    residual: jax.Array | None = None


def hypergradient(
    inner_loss: Loss,
    outer_loss: Loss,
    optimizer: optax.GradientTransformation,
    theta: PyTree,
    opt_state: PyTree,
    phi: PyTree,
    batches: tuple[PyTree, PyTree],
    *,
    kind: str,
    pullback_optimizer: optax.GradientTransformation | None = None,
    implicit: Implicit | None = None,
) -> Bilevel:
    """One inner step on theta and the gradient of the outer loss through it.

    Args:
      inner_loss: (theta, phi, part) -> (scalar, aux); L_in is its mean over the parts.
      outer_loss: (theta, phi, part) -> (scalar, aux); L_out likewise.
      optimizer: U, the inner Optax transformation.
      theta: inner parameters.
      opt_state: the state of `optimizer` for theta.
      phi: outer parameters.
      batches: the inner and the outer batch, leaves [parts, ...].
      kind: one of KINDS. `unrolled` is exact, reverse over forward; `unrolled-reverse` is the
        same derivative written literally, reverse over reverse; `none` leaves the indirect part
        out. The others take the mixed derivative at theta': along U'(g)^T v (`sama`), -v
        (`identity`; by differences `finite-difference`, the released PyTorch code's) or
        -(H + damping I)^-1 v (`neumann`, `cg`).
      pullback_optimizer: a transformation with the same state as `optimizer`, whose Jacobian
        the kinds of THROUGH_OPTIMIZER use in place of U's (say, Adam with a larger epsilon);
        None for U's own.
      implicit: how far `neumann` and `cg` solve their system; None for Implicit's defaults.

    Returns:
      A Bilevel.

    Raises:
      ValueError: for a kind that is not among KINDS.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {KINDS}.")

    inner_batch, outer_batch = batches
    update = _make_update(optimizer, pullback_optimizer, theta, opt_state)
    if kind == "unrolled-reverse":
        return _reverse_over_reverse(inner_loss, outer_loss, update, theta, phi, batches)

    inner, gradient = value_and_gradient(inner_loss, theta, phi, inner_batch)
    new_theta, pullback, new_opt_state = jax.vjp(update, gradient, has_aux=True)
    outer, (v, direct) = value_and_gradient(outer_loss, new_theta, phi, outer_batch, argnums=(0, 1))
    mixed = lambda at, u: mixed_derivative(inner_loss, at, phi, inner_batch, u)  # noqa: E731
    probes = residual = None
    if kind == "finite-difference":
        indirect, probes = _finite_difference(inner_loss, new_theta, phi, inner_batch, v)
    elif kind == "none":
        indirect = jax.tree.map(jnp.zeros_like, direct)
    elif kind in THROUGH_OPTIMIZER:
        (u,) = pullback(v)
        indirect = mixed(theta if kind == "unrolled" else new_theta, u)
    else:
        if kind in SOLVERS:
            curvature = _make_curvature(inner_loss, new_theta, phi, inner_batch)
            v, residual = solve(kind, curvature, v, implicit or Implicit())
        indirect = mixed(new_theta, jax.tree.map(jnp.negative, v))
    return Bilevel(
        new_theta, new_opt_state, inner, outer, gradient, direct, indirect, probes, residual
    )


def value_and_gradient(
    loss: Loss, theta: PyTree, phi: PyTree, batch: PyTree, argnums: int | tuple[int, ...] = 0
) -> tuple[tuple[jax.Array, Any], PyTree]:
    """The mean loss over the parts of a batch and its gradient, accumulated part by part.

    Args:
      loss: (theta, phi, part) -> (scalar, aux).
      theta: first argument.
      phi: second argument.
      batch: leaves [parts, ...].
      argnums: which of theta (0) and phi (1) the gradient is taken over.

    Returns:
      ((scalar, aux with a leading axis over the parts), gradient).
    """

    def on_part(part):
        (value, aux), gradient = jax.value_and_grad(loss, argnums, has_aux=True)(theta, phi, part)
        return (value, gradient), aux

    (value, gradient), aux = mean_over_parts(on_part, batch)
    return (value, aux), gradient


def mixed_derivative(
    loss: Loss, theta: PyTree, phi: PyTree, batch: PyTree, u: PyTree, argnums: Any = 1
) -> PyTree:
    """grad_phi of the derivative of L(., phi) at theta along u: reverse over forward.

    It is u^T d/dphi grad_theta L: the mixed second derivative is symmetric, so the one reverse
    pass runs over phi alone and never over theta.

    Args:
      loss: (theta, phi, part) -> (scalar, aux).
      theta: where.
      phi: where.
      batch: leaves [parts, ...].
      u: direction, like theta.
      argnums: 1; (0, 1) for the gradient over theta beside it, the Hessian over theta times u.

    Returns:
      A tree like phi; with (0, 1), a pair of trees like theta and phi.
    """

    def directional(theta, phi, part):
        along = lambda theta: loss(theta, phi, part)[0]  # noqa: E731
        return jax.jvp(along, (theta,), (u,))[1]

    slope = jax.grad(directional, argnums)
    return mean_over_parts(lambda part: (slope(theta, phi, part), ()), batch)[0]


@jax.named_scope("optimizer")
def take_step(
    optimizer: optax.GradientTransformation, gradient: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """One Optax update, params + U(gradient); differentiable in the gradient.

    Args:
      optimizer: U, with its learning rate.
      gradient: like params.
      opt_state: of U.
      params: before the step.

    Returns:
      (params, opt_state) after it.
    """
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _make_update(optimizer, pullback_optimizer, theta, opt_state):
    """Returns gradient -> (theta', new optimizer state), differentiable in the gradient."""

    def update(gradient):
        return take_step(optimizer, gradient, opt_state, theta)

    if pullback_optimizer is None:
        return update

    def forward(gradient):
        return update(gradient), gradient

    def backward(gradient, cotangents):
        damped = lambda g: take_step(pullback_optimizer, g, opt_state, theta)[0]  # noqa: E731
        _, pullback = jax.vjp(damped, gradient)
        return pullback(cotangents[0])

    surrogate = jax.custom_vjp(update)
    surrogate.defvjp(forward, backward)
    return surrogate


def _make_curvature(inner_loss, theta, phi, batch):
    """p -> H p with H = d^2 L_in / dtheta^2: forward over reverse, what the loss stops held."""

    def product(p):
        def on_part(part):
            slope = jax.grad(lambda theta: inner_loss(theta, phi, part)[0])
            return jax.jvp(slope, (theta,), (p,))[1], ()

        return mean_over_parts(on_part, batch)[0]

    return product


def _reverse_over_reverse(inner_loss, outer_loss, update, theta, phi, batches):
    """The literal form: grad over phi of a function that takes the inner step."""

    def unrolled(inner_phi, outer_phi):
        inner, gradient = value_and_gradient(inner_loss, theta, inner_phi, batches[0])
        new_theta, new_opt_state = update(gradient)
        value, aux = mean_over_parts(
            lambda part: outer_loss(new_theta, outer_phi, part), batches[1]
        )
        return value, (new_theta, new_opt_state, inner, (value, aux), gradient)

    # phi enters twice under two names, so that the two parts of the gradient come apart.
    (indirect, direct), byproducts = jax.grad(unrolled, argnums=(0, 1), has_aux=True)(phi, phi)
    return Bilevel(*byproducts, direct, indirect)


def _finite_difference(inner_loss, theta, phi, batch, v):
    """-(grad_phi L_in(theta + eps v) - grad_phi L_in(theta - eps v)) / (2 eps).

    As in the released code it stands at theta', and carries neither the inner learning rate
    nor the optimizer's preconditioner.
    """
    # The floor keeps eps finite, and so the quotient zero, where v vanishes.
    eps = PROBE / (optax.tree.norm(v) + 1e-12)

    def probe(sign):
        shifted = jax.tree.map(lambda t, d: t + sign * eps * d, theta, v)
        (_, aux), gradient = value_and_gradient(inner_loss, shifted, phi, batch, argnums=1)
        return gradient, aux

    (plus, plus_aux), (minus, minus_aux) = probe(1.0), probe(-1.0)
    indirect = jax.tree.map(lambda a, b: -(a - b) / (2 * eps), plus, minus)
    return indirect, (plus_aux, minus_aux)
