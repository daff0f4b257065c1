"""Evaluation: one pass over a whole set, in evaluation mode, merged inside jit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax import inputs, sharding
from mq_jax.agreement import gather
from mq_jax.data.ledger import BadImages
from mq_jax.data.sources import Source
from mq_jax.images import comparison, from_uint8, to_uint8
from mq_jax.losses import psnr_per_image, squared_error_per_image
from mq_jax.metrics import EvalMetrics, EvalMetricsWithLpips, scalars
from mq_jax.objective import Objective
from mq_jax.perceptual import perceptual_distance
from mq_jax.quantize import code_counts
from mq_jax.state import TrainState


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      scalars: `eval/mse`, `eval/psnr`, `eval/usage`, `eval/perplexity` and, where it is asked
        for, `eval/lpips`.
      picture: u8[H, W, 3], originals over reconstructions.
    """

    scalars: dict[str, float]
    picture: np.ndarray


def make_eval_step(objective: Objective, distance: Callable | None = None) -> Callable:
    """The step of an evaluation.

    Args:
      objective: L; its one formula serves training and evaluation.
      distance: LPIPS, (weights, images, reconstructions) -> f32[B]; None leaves it out.

    Returns:
      eval_step(state, metrics, images u8[B, H, W, 3], mask f32[B], weights) ->
      (EvalMetrics, reconstructions u8[B, H, W, 3]), pure. Rows whose mask is 0 do not count.
      Where averages of the parameters are kept, they are what is evaluated.
    """
    objective = objective._replace(perceptual=None, adversarial=None)

    def eval_step(state, metrics, images, mask, weights=()):
        x = from_uint8(images)
        _, outputs = objective(
            *state.evaluated, state.batch_stats, x, straight_through="encoder", train=False
        )
        # A masked row's codes go to a code past the end, which the scatter drops.
        size = objective.codebook.size
        indices = jnp.where(mask[:, None, None] > 0, outputs.indices, size)
        values = {
            "mse": squared_error_per_image(x, outputs.images),
            "psnr": psnr_per_image(x, outputs.images),
        }
        if distance is not None:
            values["lpips"] = distance(weights, x, outputs.images)
        update = type(metrics).single_from_model_output(
            code_counts=code_counts(indices, size), mask=mask, **values
        )
        return metrics.merge(update), to_uint8(outputs.images)

    return eval_step


class Evaluator:
    """Evaluates states of one run; compiles once.

    Args:
      config: validated.
      objective: L.
      source: from inputs.open_evaluation.
      mesh: from sharding.make_mesh.
      weights: of LPIPS as config.eval.lpips has it, on the host; empty without.
    """

    def __init__(
        self, config: ConfigDict, objective: Objective, source: Source, mesh: Mesh, weights: Any
    ):
        self._config, self._source, self._mesh = config, source, mesh
        self._weights = jax.device_put(weights, sharding.replicated(mesh))
        net = config.eval.lpips
        distance = None if net == "none" else perceptual_distance(net)
        self._nothing = _no_metrics(objective.codebook.size, with_lpips=distance is not None)
        # The rows of a reconstruction stay with the process whose originals they are.
        places = sharding.replicated(mesh), sharding.split(mesh)
        self._step = jax.jit(make_eval_step(objective, distance), out_shardings=places)
        self._bad_images = BadImages(source, config.data.max_bad_share)
        # Spread evenly over the set, which is often sorted by class.
        shown = np.linspace(0, len(source) - 1, min(config.eval.pictures, len(source)))
        self._shown = set(shown.round().astype(int).tolist())

    def run(self, state: TrainState) -> Evaluation:
        """One pass over the whole set.

        Args:
          state: parameters and running statistics; only read.

        Returns:
          An Evaluation.

        Raises:
          ValueError: too many images are unreadable.
        """
        metrics = jax.device_put(self._nothing, sharding.replicated(self._mesh))
        side = self._config.data.eval_image_size or self._config.data.image_size
        # The empty ones give their shapes where this process sees none.
        shown, pairs = [np.zeros(0, np.int32)], [np.zeros((0, 2, side, side, 3), np.uint8)]
        skipped = []
        for batch in inputs.evaluation_pass(self._config, self._source):
            skipped.append(batch["skipped"])
            images, mask = sharding.shard_batch(self._mesh, (batch["image"], batch["mask"]))
            metrics, reconstructions = self._step(state, metrics, images, mask, self._weights)
            rows = [row for row, index in enumerate(batch["index"]) if int(index) in self._shown]
            if rows:
                local = sharding.local_rows(reconstructions)
                shown.append(batch["index"][rows].astype(np.int32))
                pairs.append(np.stack([batch["image"][rows], local[rows]], axis=1))
        self._bad_images.record_of_all(skipped)
        values = {f"eval/{name}": value for name, value in scalars(metrics).items()}
        shown, pairs = (np.concatenate(gather(np.concatenate(own))) for own in (shown, pairs))
        in_order = pairs[np.argsort(shown)]
        return Evaluation(values, comparison(in_order[:, 0], in_order[:, 1]))


def _no_metrics(size: int, with_lpips: bool) -> EvalMetrics:
    """The metrics of no image yet."""
    metrics, nothing = (EvalMetricsWithLpips if with_lpips else EvalMetrics), jnp.zeros((0,))
    return metrics.single_from_model_output(
        mse=nothing, psnr=nothing, lpips=nothing, code_counts=jnp.zeros(size, jnp.int32)
    )
