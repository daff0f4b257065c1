"""--mode=plan: what a run would take; needs neither data nor an accelerator."""

import jax
from ml_collections import ConfigDict

from mq_jax.commandline import UsageError
from mq_jax.data import inputs
from mq_jax.devices.places import local_path
from mq_jax.planning.plan import make_plan, use_virtual_devices
from mq_jax.planning.tables import print_plan
from mq_jax.priors.build import steps_of
from mq_jax.priors.checks import require_trainable, validate
from mq_jax.runs.stages import is_prior
from mq_jax.tokensets.reading import open_tokens
from mq_jax.training.build import total_steps


def image_count(text: str) -> int:
    """The whole number that --images is for a plan.

    Args:
      text: as it was given; "" for 0.

    Returns:
      At least 0.

    Raises:
      UsageError: it is none.
    """
    if text and not text.isdecimal():
        raise UsageError(
            f"--images={text} is no whole number, which --mode=plan takes: how many images the "
            "inner level draws from."
        )
    return int(text or 0)


def plan(
    config: ConfigDict, *, devices: int, images: int, peak_tflops: float, compiled: bool
) -> None:
    """Prints the plan of a run.

    Args:
      config: the experiment.
      devices: of the run; 0: as many as config.mesh says, or 8.
      images: that the inner level draws from; 0: as many as the data has.
      peak_tflops: of a further kind of device, TFLOP/s; 0: none.
      compiled: whether to compile, for temporary memory and collectives.

    Raises:
      ValueError: the configuration is wrong, or it counts epochs of images that are not there.
    """
    validate(config)
    require_trainable(config)
    fsdp = config.mesh.fsdp
    devices = devices or config.mesh.data * fsdp or fsdp * max(8 // fsdp, 1)
    steps = _steps(config, images)
    # The time that compilation takes is told, too.
    jax.config.update("jax_enable_compilation_cache", False)
    use_virtual_devices(devices)
    made = make_plan(config, devices, compiled=compiled)
    print_plan(made, steps, peak_tflops, _evaluated(config) if compiled else 0)


def _evaluated(config):
    """Images of an evaluation; 0 where its data is not there."""
    try:
        if not is_prior(config):
            return len(inputs.open_evaluation(config))
        place = local_path(config.eval_tokens, "config.eval_tokens") if config.eval_tokens else ""
        return len(open_tokens(place)) if place else 0
    except (OSError, ValueError):
        return 0


def _steps(config, images):
    """Steps of the run; epochs need the number of images."""
    if is_prior(config):
        return _steps_of_prior(config, images)
    if config.train.steps or images:
        return total_steps(config, images)
    try:
        found = len(inputs.open_training(config).autoencoder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{error} Or give --images=N: config.train.epochs is {config.train.epochs}, of how "
            "many images is not known."
        ) from error
    return total_steps(config, found)


def _steps_of_prior(config, images):
    """As _steps, of a prior: images of its token set."""
    if not config.train.steps and not images:
        try:
            images = len(open_tokens(local_path(config.tokens, "config.tokens")))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{error} Or give --images=N: config.train.epochs is {config.train.epochs}, of how "
                "many images is not known."
            ) from error
    return steps_of(config, images)
