"""From a configuration and a space of tokens to a prior, its optimizer and its step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mq_jax.algorithm.optim import make_optimizer, make_warmup_constant, make_warmup_cosine
from mq_jax.generation.autoregressive import Autoregressive
from mq_jax.generation.decoder import Decoder
from mq_jax.generation.masked import Masked
from mq_jax.generation.masked_prior import MaskedPrior
from mq_jax.generation.prior import Prior
from mq_jax.generation.sizes import Net, net_of
from mq_jax.generation.space import TokenSpace
from mq_jax.priors.state import PriorState
from mq_jax.priors.step import make_train_step


class Built(NamedTuple):
    """What a configuration describes.

    Attributes:
      prior: over the tokens.
      optimizer: of all its parameters.
      train_step: from step.make_train_step.
    """

    prior: Prior
    optimizer: optax.GradientTransformation
    train_step: Callable


def build(config: ConfigDict, space: TokenSpace, steps: int) -> Built:
    """Builds a validated configuration.

    Args:
      config: as configs/prior.py lays it out, validated.
      space: of the tokens.
      steps: of the whole run, from steps_of.

    Returns:
      A Built.
    """
    prior, schedule, train = make_prior(config, space), _make_schedule(config, steps), config.train
    optimizer = _make_optimizer(config, schedule)
    settings = {"ema_decay": train.ema_decay, "parts": train.accumulate}
    step = make_train_step(prior, optimizer, schedule, **settings)
    return Built(prior, optimizer, step)


def make_prior(config: ConfigDict, space: TokenSpace) -> Prior:
    """The prior alone.

    Args:
      config: validated; its section prior is read.
      space: of the tokens.

    Returns:
      A prior.
    """
    fields, net = config.prior, make_net(config)
    if fields.kind == "autoregressive":
        return Autoregressive(Decoder(space, net), fields.class_dropout)
    return MaskedPrior(Masked(space, net), fields.class_dropout, fields.smoothing)


def make_net(config: ConfigDict) -> Net:
    """The transformer of a configuration.

    Args:
      config: its section prior is read.

    Returns:
      A Net.

    Raises:
      ValueError: its heads do not divide its width.
    """
    fields = config.prior
    changes = {name: fields[name] for name in ("layers", "heads", "width") if fields[name]}
    given = ("qk_norm", "token_dropout", "residual_dropout", "ffn_dropout", "remat")
    changes |= {name: fields[name] for name in given}
    return net_of(fields.size, dtype=jnp.dtype(fields.dtype), **changes)


def init_state(built: Built, config: ConfigDict) -> PriorState:
    """The state before the first step; traceable.

    Args:
      built: of the same configuration.
      config: its seed is read, and whether averages are kept.

    Returns:
      A PriorState at step 0.
    """
    rng, key = jax.random.split(jax.random.key(config.seed))
    params = built.prior.init(key)
    ema = params if config.train.ema_decay else ()
    return PriorState(jnp.zeros((), jnp.int32), params, built.optimizer.init(params), rng, ema)


def steps_of(config: ConfigDict, images: int) -> int:
    """Updates of the whole run.

    Args:
      config: train.steps, or where it is 0 train.epochs, is read.
      images: of the token set.

    Returns:
      At least 1.

    Raises:
      ValueError: the epochs make no whole batch.
    """
    train = config.train
    steps = train.steps or train.epochs * images // train.batch_size
    if steps < 1:
        raise ValueError(
            f"config.train.epochs is {train.epochs} over {images} images, less than one batch of "
            f"{train.batch_size}; expected config.train.steps or more epochs."
        )
    return steps


def _make_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    train = config.train
    warmup = round(train.warmup * steps)
    if train.schedule == "constant":
        return make_warmup_constant(train.learning_rate, warmup=warmup)
    return make_warmup_cosine(train.learning_rate, steps=steps, warmup=warmup)


def _make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    fields = config.optimizer.to_dict()
    return make_optimizer("adam", schedule, **fields, eps_root=0.0, decays=_is_matrix)


def _is_matrix(path: tuple) -> bool:
    """Whether a parameter is one of those that decay: all but the scales of normalisations."""
    return path[-1].key != "scale"
