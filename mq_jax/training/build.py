"""From a configuration to modules, optimizers and steps: the only reader of both."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.algorithm import mq
from mq_jax.algorithm.adversary import Adversary, make_adversarial_weight
from mq_jax.algorithm.losses import ADVERSARIAL_LOSSES, RECONSTRUCTION_LOSSES
from mq_jax.algorithm.objective import Adversarial, Objective, Perceptual
from mq_jax.algorithm.optim import freeze, make_optimizer, make_warmup_cosine
from mq_jax.algorithm.state import Parts
from mq_jax.devices.sharding import make_mesh
from mq_jax.metrics.perceptual import perceptual_distance
from mq_jax.models import maskgit, vqgan, vqvae
from mq_jax.models.discriminator import Discriminator
from mq_jax.quantizers.bases import is_base
from mq_jax.quantizers.lookup import make_lookup
from mq_jax.training.quantizing import gives_log_variances, make_quantizer
from mq_jax.training.steps import make_steps


class Built(NamedTuple):
    """What a configuration describes.

    Attributes:
      problem: L, its optimizers and the discriminator's training.
      train_step: (state, inner_batch, outer_batch, frozen) -> (state, metrics); with
        train.unroll above 1, inner_batch is a tuple of so many.
      inner_step: the same without the outer level, between outer updates; None where every
        step has one.
      pullback: see bilevel.hypergradient, which the steps give it.
    """

    problem: mq.Problem
    train_step: mq.TrainStep
    inner_step: mq.TrainStep | None
    pullback: optax.GradientTransformation | None

    @property
    def objective(self) -> Objective:
        """L, with the modules inside."""
        return self.problem.objective


def build(config: ConfigDict, steps: int, mesh: Mesh | None = None) -> Built:
    """Builds a validated configuration.

    Args:
      config: as configs/base.py lays it out, validated.
      steps: inner updates of the whole run, as total_steps returns them.
      mesh: over which a lookup may be shared out; None for that of the configuration.

    Returns:
      A Built.
    """
    mesh = mesh or make_mesh(config.mesh.data, config.mesh.fsdp)
    optimizers, pullback = _make_optimizers(config, steps)
    problem = mq.Problem(
        _make_objective(config, mesh),
        optimizers,
        adversary=_make_adversary(config, steps),
        ema_decay=config.train.ema_decay,
        parts=config.train.accumulate,
        # XLA's CPU backend runs the convolutions of a loop twenty times slower.
        written_out=mesh.devices.flat[0].platform == "cpu",
    )
    return Built(problem, *make_steps(problem, config, pullback), pullback)


def total_steps(config: ConfigDict, images: int) -> int:
    """Inner updates of the whole run.

    Args:
      config: train.steps, or where it is 0 train.epochs, is read; these are rounded down where
        a step takes several inner updates as one.
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
    if config.train.unroll > 1:
        # At least one: two levels train nothing without an outer update.
        return max(steps // config.train.inner_updates, 1) * config.train.inner_updates
    return steps


def settled_step(config: ConfigDict, steps: int) -> int:
    """The first step whose state has learned under the whole weight of the adversarial term.

    Args:
      config: validated.
      steps: of the whole run, from total_steps.

    Returns:
      1 without such a term; beyond `steps` where it never has its whole weight.
    """
    if not config.discriminator.weight:
        return 1
    start, ramp = _adversarial_steps(config, steps)
    # The update after `start` steps is the first that the term enters.
    return start + max(ramp, 1)


def _adversarial_steps(config, steps):
    """The step at which the adversarial term sets in, and the steps over which it rises."""
    fields = config.discriminator
    return round(fields.start * steps), round(fields.ramp * steps)


def _make_objective(config: ConfigDict, mesh: Mesh) -> Objective:
    """L with its modules."""
    perceptual = adversarial = None
    if config.perceptual.net != "none":
        distance = perceptual_distance(
            config.perceptual.net, config.model.dtype, config.model.remat
        )
        perceptual = Perceptual(distance, config.perceptual.weight)
    if config.discriminator.weight:
        loss, _ = ADVERSARIAL_LOSSES[config.discriminator.loss]
        adversarial = Adversarial(
            _make_discriminator(config),
            loss,
            config.discriminator.adaptive,
            config.discriminator.cap,
        )
    return Objective(
        make_autoencoder(config),
        make_quantizer(
            config,
            make_lookup(
                mesh, chunk=config.codebook.lookup_chunk, sharded=config.codebook.shard_lookup
            ),
        ),
        RECONSTRUCTION_LOSSES[config.train.reconstruction],
        config.train.quantization_weight,
        perceptual,
        adversarial,
    )


def make_autoencoder(config: ConfigDict) -> nn.Module:
    """The encoder and the decoder.

    Args:
      config: its sections model, codebook and quantizer, and data.image_size, are read.

    Returns:
      A module as objective.Objective describes it.
    """
    model = config.model
    shared = {
        "blocks": model.blocks,
        "dim": config.codebook.dim,
        "layer_norm": model.layer_norm,
        "init_std": model.init_std,
        "log_variances": gives_log_variances(config),
    }
    if model.kind == "vqvae":
        return vqvae.AutoEncoder(channels=tuple(model.channels), **shared)
    shared |= {
        "channels": model.channels[0],
        "multipliers": tuple(model.multipliers),
        "groups": model.groups,
        "dtype": jnp.dtype(model.dtype),
        "remat": model.remat,
        "unit_pixels": model.unit_pixels,
    }
    if model.kind == "maskgit":
        return maskgit.AutoEncoder(**shared)
    sides = [config.data.image_size >> level for level in range(len(model.multipliers))]
    return vqgan.AutoEncoder(
        **shared,
        attention=tuple(level for level, side in enumerate(sides) if side in model.attention),
        z_channels=model.z_channels,
        middle_attention=model.middle_attention,
    )


def _make_discriminator(config: ConfigDict) -> Discriminator:
    return Discriminator(
        channels=config.discriminator.channels,
        layers=config.discriminator.layers,
        norm=config.discriminator.norm,
        dtype=jnp.dtype(config.model.dtype),
    )


def _make_adversary(config: ConfigDict, steps: int) -> Adversary | None:
    """The discriminator's training."""
    fields = config.discriminator
    if not fields.weight:
        return None
    _, loss = ADVERSARIAL_LOSSES[fields.loss]
    start, ramp = _adversarial_steps(config, steps)
    return Adversary(
        _make_discriminator(config),
        loss,
        make_adversarial_weight(fields.weight, start=start, ramp=ramp),
        train_from=round(fields.train_from * steps),
        r1=fields.r1,
        lecam=fields.lecam,
    )


def _make_optimizers(
    config: ConfigDict, steps: int
) -> tuple[Parts, optax.GradientTransformation | None]:
    """The optimizers by part, and that of the pullback or None."""
    updates = {
        "inner": steps,
        "outer": max(steps // config.train.inner_updates, 1),
        "disc": max(steps - round(config.discriminator.train_from * steps), 1),
    }

    def optimizer(level, **changes):
        fields = {**config[level].to_dict(), **changes}
        ratio = fields.pop("learning_rate_ratio", 1.0)
        warmup = fields.pop("warmup", config.train.warmup)
        fields.pop("pullback_eps", None)
        schedule = make_warmup_cosine(
            config.train.learning_rate * ratio,
            steps=updates[level],
            warmup=round(warmup * updates[level]),
        )
        return make_optimizer(fields.pop("kind"), schedule, **fields)

    pullback = None
    if config.inner.pullback_eps:
        pullback = optimizer("inner", eps=config.inner.pullback_eps)
    outer = optimizer("outer")
    if not config.codebook.train_embedding:
        outer = freeze(outer, is_base)
    return Parts(optimizer("inner"), outer, optimizer("disc")), pullback
