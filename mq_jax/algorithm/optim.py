"""Schedules and optimizers, from numbers to Optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

KINDS = ("adam", "sgd")


def make_warmup_cosine(
    learning_rate: float, *, steps: int, warmup: int
) -> Callable[[jax.Array], jax.Array]:
    """A linear warm-up, then half a cosine to zero: the paper's schedule.

    Update n (from 0) of the warm-up runs at learning_rate * (n + 1) / warmup, so the first
    update already moves; the last one falls just short of zero.

    Args:
      learning_rate: the peak.
      steps: updates in all, at least 1.
      warmup: updates of the warm-up, in [0, steps].

    Returns:
      count -> learning rate, f32[].
    """
    decay = max(steps - warmup, 1)

    def schedule(count):
        rising = (count + 1) / max(warmup, 1)
        progress = jnp.clip((count - warmup) / decay, 0, 1)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return learning_rate * jnp.where(count < warmup, rising, falling)

    return schedule


def make_warmup_constant(learning_rate: float, *, warmup: int) -> Callable[[jax.Array], jax.Array]:
    """A linear warm-up as make_warmup_cosine's, then the same rate for ever.

    Args:
      learning_rate: after it.
      warmup: updates of the warm-up; 0 for none.

    Returns:
      count -> learning rate, f32[].
    """

    def schedule(count):
        return learning_rate * jnp.minimum((count + 1) / max(warmup, 1), 1)

    return schedule


def make_optimizer(
    kind: str,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    b1: float,
    b2: float,
    eps: float,
    eps_root: float,
    weight_decay: float,
    clip: float,
    decays: Callable[[tuple], bool] | None = None,
) -> optax.GradientTransformation:
    """An Optax transformation.

    Args:
      kind: one of KINDS; `sgd` uses b1 as its momentum and ignores b2, eps and eps_root.
      schedule: count -> learning rate.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: Adam's epsilon outside the square root.
      eps_root: Adam's epsilon inside it. Must be positive where a hyper-gradient passes: the
        derivative of sqrt at an exactly-zero second moment is infinite.
      weight_decay: decoupled weight decay, 0 for none.
      clip: largest global gradient norm, 0 for no clipping.
      decays: path of a leaf in the parameter tree -> whether its weights decay; None: all do.

    Returns:
      The transformation.

    Raises:
      ValueError: for a kind that is not among KINDS.
    """
    stages = [optax.clip_by_global_norm(clip)] if clip else []
    if kind == "adam":
        stages.append(optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root))
    elif kind == "sgd":
        stages += [optax.trace(decay=b1)] if b1 else []
    else:
        raise ValueError(f"optimizer kind is {kind!r}; expected one of {KINDS}.")
    if weight_decay:
        mask = decays and (
            lambda params: jax.tree_util.tree_map_with_path(lambda path, _: decays(path), params)
        )
        stages.append(optax.add_decayed_weights(weight_decay, mask))
    return optax.chain(*stages, optax.scale_by_learning_rate(schedule))


def freeze(
    optimizer: optax.GradientTransformation, frozen: Callable[[tuple], bool]
) -> optax.GradientTransformation:
    """Leaves some parameters as they are.

    Args:
      optimizer: the transformation for the rest.
      frozen: path of a leaf in the parameter tree -> whether it stays.

    Returns:
      The transformation.
    """

    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if frozen(path) else "trained", params
        )

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def restarted(
    optimizer: optax.GradientTransformation, opt_state: Any, params: Any, replaced: Any
) -> Any:
    """An optimizer's state in which some numbers have no past.

    Args:
      optimizer: the transformation.
      opt_state: of it.
      params: the tree that it is for.
      replaced: bool, a tree like params, true where a number has been overwritten.

    Returns:
      The state, with what it would begin with there; counts of steps stay.
    """

    def absent(leaf):
        # Of what is frozen there are no moments.
        return isinstance(leaf, optax.MaskedNode)

    masks = optax.tree.map_params(
        optimizer,
        lambda moment, overwritten: moment if absent(moment) else overwritten,
        opt_state,
        replaced,
        transform_non_params=lambda _: False,
        is_leaf=absent,
    )
    return jax.tree.map(jnp.where, masks, optimizer.init(params), opt_state)


def averaged(average: Any, now: Any, decay: float, step: jax.Array) -> Any:
    """The exponential moving average, one step later.

    Args:
      average: a tree.
      now: a tree like it.
      decay: in (0, 1); less during the first steps, of which there are few.
      step: i32[], steps before this one.

    Returns:
      decay * average + (1 - decay) * now; what is no floating-point number, as it is now.
    """
    decay = jnp.minimum(decay, (1 + step) / (10 + step))

    def of_leaf(old, new):
        # A count of steps has no average.
        moves = jnp.issubdtype(new.dtype, jnp.floating)
        return decay * old + (1 - decay) * new if moves else new

    return jax.tree.map(of_leaf, average, now)
