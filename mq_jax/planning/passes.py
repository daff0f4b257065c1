"""An evaluation on more devices: its steps as the program makes them, and what they wait for."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.data.inputs import evaluation_side, evaluation_threads
from mq_jax.devices.peaks import Peak
from mq_jax.metrics.measures import describe_measures
from mq_jax.planning import rates, scale
from mq_jax.planning.plan import Plan
from mq_jax.planning.rates import Load
from mq_jax.planning.subjects import flops_by_part
from mq_jax.runs.stages import is_prior

# Images of ImageNet's validation, for a set of which nobody knows how many it has.
USUAL_IMAGES = 50_000
# What an evaluation runs of a model.
_MODEL = ("encoder", "lookup", "hyper-net", "decoder", "transformer", "heads")


class Evaluating(NamedTuple):
    """What an evaluation takes.

    Attributes:
      images: of its set.
      between: images that a level trains on between two.
      batch: config.eval.batch_size.
      threads: that read, of a process; of a training's workers as many.
      records: that they read.
      image: Load of one.
      fixed: Load of a step, whatever its images are.
    """

    images: int
    between: int
    batch: int
    threads: int
    records: rates.Records
    image: Load
    fixed: Load


class Pass(NamedTuple):
    """An evaluation on so many devices.

    Attributes:
      each: images of a step on each device, those that fill it up among them.
      steps: one after the other.
      compute: seconds of the networks, of measures too.
      read: seconds to read the images, at the most and the least of the records' rates.
    """

    each: int
    steps: int
    compute: float
    read: tuple[float, float]

    @property
    def seconds(self) -> tuple[float, float]:
        """In all, likewise: a batch is read while another is computed."""
        return max(self.compute, self.read[0]), max(self.compute, self.read[1])


def evaluating_of(plan: Plan, images: int) -> Evaluating:
    """What a plan says of its evaluation.

    Args:
      plan: from make_plan.
      images: of the evaluation; 0: not known.

    Returns:
      An Evaluating.
    """
    config, prior = plan.config, is_prior(plan.config)
    found = scale.loads({part: plan.forward.get(part, 0) for part in _MODEL})
    image = found["batch"].times(1 / config.train.batch_size)
    if not prior:
        larger = (evaluation_side(config) / config.data.image_size) ** 2
        image = image.times(larger).plus(Load(0, measured(config)))
    threads = config.data.threads if prior else evaluation_threads(config)
    return Evaluating(
        images=images or USUAL_IMAGES,
        between=config.train.eval_every * config.train.batch_size,
        batch=config.eval.batch_size,
        threads=max(threads, 1),
        records=rates.TOKENS if prior else rates.JPEGS,
        image=image,
        fixed=found["fixed"],
    )


def measured(config: ConfigDict) -> float:
    """Matrix FLOPs by which an accelerator measures an image.

    A Fréchet distance counts the reconstruction alone: of originals it keeps what it found.

    Args:
      config: validated, of an auto-encoder.

    Returns:
      FLOPs, of eval.metrics.
    """
    measures = describe_measures(config.eval.metrics)
    side = evaluation_side(config)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    parts = [
        flops_by_part(function, measures.weights, image, image, platform="cuda")
        for _, function in measures.per_image
    ]
    if measures.features is not None:
        function = measures.features.function
        parts.append(flops_by_part(function, measures.weights, image, platform="cuda"))
    return sum(sum(part.values()) for part in parts)


def pass_on(devices: int, evaluating: Evaluating, batch: int, peak: Peak, dtype: str) -> Pass:
    """An evaluation.

    Args:
      devices: in all.
      evaluating: from evaluating_of; each machine has one process with its threads.
      batch: as eval.batch_size; filled up to the devices.
      peak: of the devices.
      dtype: of the net.

    Returns:
      A Pass.
    """
    each = math.ceil(batch / devices)
    steps = math.ceil(evaluating.images / (each * devices))
    load = evaluating.image.times(each).plus(evaluating.fixed)
    compute = steps * rates.compute_seconds(load, peak, dtype)
    records = evaluating.records
    one = evaluating.images / (evaluating.threads * rates.machines(devices))
    return Pass(each, steps, compute, (one / records.most, one / records.least))
