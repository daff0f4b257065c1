"""How many steps a run has: of epochs, by the images that are given or that its data declares."""

from ml_collections import ConfigDict

from mq_jax.commandline import UsageError
from mq_jax.data import inputs
from mq_jax.devices.places import local_path
from mq_jax.priors.build import steps_of
from mq_jax.runs.stages import is_prior
from mq_jax.tokensets.reading import open_tokens
from mq_jax.training.build import total_steps


def image_count(text: str, mode: str) -> int:
    """The whole number that --images is where runs are planned.

    Args:
      text: as it was given; "" for 0.
      mode: that takes it.

    Returns:
      At least 0.

    Raises:
      UsageError: it is none.
    """
    if text and not text.isdecimal():
        raise UsageError(
            f"--images={text} is no whole number, which --mode={mode} takes: how many images the "
            "inner level draws from."
        )
    return int(text or 0)


def run_steps(config: ConfigDict, images: int) -> int:
    """Steps of the whole run.

    Args:
      config: validated, of either stage.
      images: that the inner level, or a prior, draws from; looked at where steps is 0 alone.

    Returns:
      At least 1.

    Raises:
      ValueError: the epochs make no whole batch.
    """
    return steps_of(config, images) if is_prior(config) else total_steps(config, images)


def declared_images(config: ConfigDict) -> int:
    """How many images the inner level, or a prior, draws from, as the data itself says.

    Args:
      config: validated, of either stage.

    Returns:
      Their number.

    Raises:
      ValueError: the data is not there; says how else the number is given.
    """
    try:
        if is_prior(config):
            return len(open_tokens(local_path(config.tokens, "config.tokens")))
        return len(inputs.open_training(config).autoencoder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{error} Or give --images=N: config.train.epochs is {config.train.epochs}, of how "
            "many images is not known."
        ) from error
