"""--mode=plan: what a run would take; needs neither data nor an accelerator."""

import jax
from ml_collections import ConfigDict

from mq_jax.modes.lengths import declared_images, run_steps
from mq_jax.planning.plan import make_plan, use_virtual_devices
from mq_jax.planning.tables import print_plan
from mq_jax.priors.checks import validate


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
    fsdp = config.mesh.fsdp
    devices = devices or config.mesh.data * fsdp or fsdp * max(8 // fsdp, 1)
    if not (config.train.steps or images):
        images = declared_images(config)
    steps = run_steps(config, images)
    # The time that compilation takes is told, too.
    jax.config.update("jax_enable_compilation_cache", False)
    use_virtual_devices(devices)
    print_plan(make_plan(config, devices, compiled=compiled), steps, peak_tflops)
