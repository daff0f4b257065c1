"""From a configuration to modules, optimizers and steps: the only reader of both."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mq_jax import mq
from mq_jax.losses import RECONSTRUCTION_LOSSES
from mq_jax.models.codebook import Codebook
from mq_jax.models.vqvae import AutoEncoder
from mq_jax.objective import Objective
from mq_jax.optim import freeze, make_optimizer, make_warmup_cosine
from mq_jax.state import Parts, TrainState


class Built(NamedTuple):
    """What a configuration describes.

    Attributes:
      objective: L, with the modules inside.
      optimizers: Optax transformations by part.
      train_step: (state, inner_batch, outer_batch) -> (state, metrics).
      inner_step: the same without the outer level, between outer updates; None where every
        step has one.
    """

    objective: Objective
    optimizers: Parts
    train_step: mq.TrainStep
    inner_step: mq.TrainStep | None


def build(config: ConfigDict, steps: int) -> Built:
    """Builds a validated configuration.

    Args:
      config: as configs/base.py lays it out, validated.
      steps: inner updates of the whole run, as total_steps returns them.

    Returns:
      A Built.
    """
    objective = _make_objective(config)
    inner, outer, pullback = _make_optimizers(config, steps)
    optimizers = Parts(inner, outer)
    kind = config.train.straight_through
    if config.train.hypergradient == "joint":
        train_step = mq.make_joint_step(objective, optimizers, straight_through=kind)
        return Built(objective, optimizers, train_step, None)
    train_step = mq.make_train_step(
        objective,
        optimizers,
        hypergradient=config.train.hypergradient,
        straight_through=kind,
        pullback_optimizer=pullback,
    )
    inner_step = None
    if config.train.inner_updates > 1:
        inner_step = mq.make_inner_step(objective, optimizers)
    return Built(objective, optimizers, train_step, inner_step)


def init_state(built: Built, config: ConfigDict) -> TrainState:
    """The state before the first step; traceable.

    Args:
      built: of the same configuration.
      config: its seed and image size are read.

    Returns:
      A TrainState at step 0.
    """
    rng, theta_key, phi_key = jax.random.split(jax.random.key(config.seed), 3)
    images = jnp.zeros((1, config.data.image_size, config.data.image_size, 3))
    theta = built.objective.autoencoder.init(theta_key, images, train=False)
    phi = built.objective.codebook.init(phi_key)
    params = Parts(theta["params"], phi["params"])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=Parts(*[o.init(p) for o, p in zip(built.optimizers, params, strict=True)]),
        batch_stats=theta["batch_stats"],
        rng=rng,
    )


def total_steps(config: ConfigDict, images: int) -> int:
    """Inner updates of the whole run.

    Args:
      config: train.steps, or where it is 0 train.epochs, is read.
      images: images that the inner level draws from.

    Returns:
      At least 1.

    Raises:
      ValueError: the epochs make no whole batch.
    """
    if config.train.steps:
        return config.train.steps
    steps = config.train.epochs * images // config.train.batch_size
    if steps < 1:
        raise ValueError(
            f"config.train.epochs is {config.train.epochs} over {images} images, less than one "
            f"batch of {config.train.batch_size}; expected config.train.steps or more epochs."
        )
    return steps


def _make_objective(config: ConfigDict) -> Objective:
    """L with its modules."""
    autoencoder = AutoEncoder(
        channels=tuple(config.model.channels),
        blocks=config.model.blocks,
        dim=config.codebook.dim,
        layer_norm=config.model.layer_norm,
        init_std=config.model.init_std,
    )
    codebook = Codebook(
        kind=config.codebook.kind,
        size=config.codebook.size,
        dim=config.codebook.dim,
        embedding_dim=config.codebook.embedding_dim,
        hidden=config.codebook.hidden,
    )
    return Objective(
        autoencoder,
        codebook,
        RECONSTRUCTION_LOSSES[config.train.reconstruction],
        config.train.quantization_weight,
        config.codebook.lookup_chunk,
    )


def _make_optimizers(config: ConfigDict, steps: int) -> tuple[optax.GradientTransformation, ...]:
    """The optimizers of theta and of phi, and that of the pullback or None."""
    updates = {"inner": steps, "outer": max(steps // config.train.inner_updates, 1)}

    def optimizer(level, **changes):
        fields = {**config[level].to_dict(), **changes}
        ratio = fields.pop("learning_rate_ratio", 1.0)
        fields.pop("pullback_eps", None)
        schedule = make_warmup_cosine(
            config.train.learning_rate * ratio,
            steps=updates[level],
            warmup=round(config.train.warmup * updates[level]),
        )
        return make_optimizer(fields.pop("kind"), schedule, **fields)

    pullback = None
    if config.inner.pullback_eps:
        pullback = optimizer("inner", eps=config.inner.pullback_eps)
    outer = optimizer("outer")
    if not config.codebook.train_embedding:
        outer = freeze(outer, lambda path: path[0].key == "embedding")
    return optimizer("inner"), outer, pullback
