"""What a train step reports of itself: losses, norms of gradients, codes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mq_jax.algorithm import bilevel
from mq_jax.algorithm.objective import Objective, Outputs
from mq_jax.quantizers.histogram import code_counts
from mq_jax.quantizers.quantizer import codes, distinct


def two_level_metrics(
    objective: Objective, result: bilevel.Bilevel, phi: Any, quantizer_state: Any
) -> dict[str, jax.Array]:
    """What a step of both levels reports.

    Args:
      objective: L.
      result: of the inner step and the outer gradient.
      phi: the quantizer's parameters after the outer update.
      quantizer_state: what no gradient moves of it, before the step.

    Returns:
      Metrics by name: those of inner_metrics, `outer/...`.
    """
    direct, indirect = optax.tree.norm(result.direct), optax.tree.norm(result.indirect)
    product = optax.tree.vdot(result.direct, result.indirect)
    metrics = {
        **inner_metrics(objective, *result.inner, result.inner_gradient),
        **_loss_metrics("outer", *result.outer),
        "outer/direct_norm": direct,
        "outer/indirect_norm": indirect,
        # 0, not 0/0, where there is no indirect part.
        "outer/direct_indirect_cosine": product / jnp.maximum(direct * indirect, 1e-30),
        "outer/code_flip_rate": _flip_rate(objective, result.outer[1], phi, quantizer_state),
        "outer/updates": jnp.ones(()),
    }
    if result.probes is not None:
        plus, minus = result.probes
        metrics["outer/probe_flip_rate"] = jnp.mean(plus.indices != minus.indices)
    if result.residual is not None:
        metrics["outer/solve_residual"] = result.residual
    return metrics


def inner_metrics(
    objective: Objective, loss: jax.Array, outputs: Outputs, gradient: Any
) -> dict[str, jax.Array]:
    """What the inner level, or the joint step, reports.

    Args:
      objective: L.
      loss: its value.
      outputs: of the pass, an axis of parts before all else.
      gradient: of theta.

    Returns:
      Metrics by name, `inner/code_counts` i32[codes] among them.
    """
    return {
        **_loss_metrics("inner", loss, outputs),
        "inner/code_counts": code_counts(
            distinct(outputs.indices, objective.quantizer), codes(objective.quantizer)
        ),
        "inner/gradient_norm": optax.tree.norm(gradient),
    }


def _loss_metrics(level, loss, outputs):
    """L and its terms, means over the parts of the batch."""
    terms = {f"{level}/{name}": jnp.mean(term) for name, term in outputs.terms.items()}
    return {f"{level}/loss": loss, **terms}


def _flip_rate(objective, outputs, phi, quantizer_state):
    """The share of the outer batch's codes that the new codebook reassigns, z being fixed."""
    # One image in eight is sample enough, and the third lookup of a step costs next to nothing.
    z, indices = outputs.z[:, ::8], outputs.indices[:, ::8]
    quantizer = objective.quantizer
    moved = quantizer.encode(quantizer.fold(phi, quantizer_state), z)
    return jnp.mean(moved != indices)
