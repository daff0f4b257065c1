"""--mode=plan: what a run would take; needs neither data nor an accelerator."""

import jax
from ml_collections import ConfigDict

from mq_jax.data import inputs
from mq_jax.devices.places import local_path
from mq_jax.modes.lengths import declared_images, run_steps
from mq_jax.planning.plan import make_plan, use_virtual_devices
from mq_jax.planning.tables import print_plan
from mq_jax.priors.checks import require_trainable, validate
from mq_jax.runs.stages import is_prior
from mq_jax.tokensets.reading import open_tokens


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
    if not (config.train.steps or images):
        images = declared_images(config)
    steps = run_steps(config, images)
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
