"""Evaluation: one pass over a whole set, in evaluation mode, merged inside jit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.algorithm.losses import psnr_per_image, squared_error_per_image
from mq_jax.algorithm.objective import Objective
from mq_jax.algorithm.state import TrainState
from mq_jax.data import inputs
from mq_jax.data.contents import evaluated_images
from mq_jax.data.ledger import LEFT_OUT, BadImages
from mq_jax.data.sources import Source
from mq_jax.devices import sharding
from mq_jax.devices.agreement import gather
from mq_jax.devices.cache import cache_directory
from mq_jax.images.scale import from_uint8, to_uint8
from mq_jax.metrics.collections import empty_evaluation, scalars
from mq_jax.metrics.feature_moments import FeatureMoments
from mq_jax.metrics.fingerprint import PixelDigest
from mq_jax.metrics.measures import Measures
from mq_jax.quantizers.histogram import code_counts
from mq_jax.quantizers.quantizer import codes, distinct
from mq_jax.runs.snapshot import Snapshot


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      scalars: `eval/mse`, `eval/psnr`, `eval/usage`, `eval/perplexity`, and `eval/NAME` of what
        else is measured.
      counts: i64[codes], how often each code occurs, K or J times K.
      codebook: f32[codes, D], what they stand for.
      originals: u8[N, H, W, 3], the images that are shown.
      reconstructions: u8[N, H, W, 3], theirs.
      images: number of images that count, the readable ones.
      pixels: digest of these images.
      about: these images in a phrase: set, split, number, side.
    """

    scalars: dict[str, float]
    counts: np.ndarray
    codebook: np.ndarray
    originals: np.ndarray
    reconstructions: np.ndarray
    images: int
    pixels: str
    about: str = ""

    def snapshot(self, step: int) -> Snapshot:
        """What a report shows of it, as that of a step."""
        shown = self.originals, self.reconstructions
        return Snapshot(step, self.counts, self.codebook, *shown, self.about)


def make_eval_step(
    objective: Objective,
    per_image: tuple[tuple[str, Callable], ...] = (),
    features: Callable | None = None,
) -> Callable:
    """The step of an evaluation.

    Args:
      objective: L; its one formula serves training and evaluation.
      per_image: as Measures has it.
      features: of the images, which the step returns too; None: none.

    Returns:
      eval_step(state, metrics, images u8[B, H, W, 3], mask f32[B], weights) ->
      (metrics, reconstructions u8[B, H, W, 3][, features]), pure. Rows whose mask is 0 do not
      count. Where averages are kept, they are what is evaluated.
    """
    objective = objective._replace(perceptual=None, adversarial=None)

    def eval_step(state, metrics, images, mask, weights):
        x = from_uint8(images)
        *model, quantizer_state = state.evaluated
        _, outputs = objective(
            *model, x, straight_through="encoder", quantizer_state=quantizer_state, train=False
        )
        # A masked row's codes go to a code past the end, which the scatter drops.
        indices = distinct(outputs.indices, objective.quantizer)
        size = codes(objective.quantizer)
        kept = jnp.expand_dims(mask, range(1, indices.ndim)) > 0
        indices = jnp.where(kept, indices, size)
        values = {
            "mse": squared_error_per_image(x, outputs.images),
            "psnr": psnr_per_image(x, outputs.images),
            **{name: measure(weights, x, outputs.images) for name, measure in per_image},
        }
        update = type(metrics).single_from_model_output(
            code_counts=code_counts(indices, size), mask=mask, **values
        )
        found = metrics.merge(update), to_uint8(outputs.images)
        # XLA joins this pass of the net with the one that a measure of single images makes.
        return found if features is None else (*found, features(weights, x))

    return eval_step


class Evaluator:
    """Evaluates states of one run; compiles once.

    Args:
      config: validated.
      objective: L.
      source: from inputs.open_evaluation.
      mesh: from sharding.make_mesh.
      measures: what is measured beside MSE, PSNR and the use of codes.
    """

    def __init__(
        self,
        config: ConfigDict,
        objective: Objective,
        source: Source,
        mesh: Mesh,
        measures: Measures,
    ):
        self._config, self._source, self._mesh = config, source, mesh
        everywhere = sharding.replicated(mesh)
        self._weights = jax.device_put(measures.weights, everywhere)
        names = "mse", "psnr", *(name for name, _ in measures.per_image)
        nothing = jax.jit(empty_evaluation, static_argnums=(0, 1), out_shardings=everywhere)
        self._nothing = nothing(codes(objective.quantizer), names)
        # The rows of a reconstruction stay with the process whose originals they are.
        split = sharding.split(mesh)
        places = (everywhere, split) + (split,) * (measures.free_features is not None)
        step = make_eval_step(objective, measures.per_image, measures.free_features)
        self._step = jax.jit(step, out_shardings=places)
        self._codewords = jax.jit(objective.codewords, out_shardings=everywhere)
        self._moments = None
        if measures.features is not None:
            cache = cache_directory()
            references = None if cache is None else cache / "references"
            self._moments = FeatureMoments(
                measures, self._weights, mesh, config, source, references
            )
        self._bad_images = BadImages(source, config.data.max_bad_share, LEFT_OUT)
        # Spread evenly over the set, which is often sorted by class.
        shown = np.linspace(0, len(source) - 1, min(config.eval.pictures, len(source)))
        self._shown = set(shown.round().astype(int).tolist())

    def run(self, state: TrainState, progress: Callable[[int], Any] | None = None) -> Evaluation:
        """One pass over the whole set.

        Args:
          state: its `evaluated` is read.
          progress: told the number of further images that this process has done.

        Returns:
          An Evaluation.

        Raises:
          ValueError: too many images are unreadable.
        """
        metrics = self._nothing
        pixels, shown, skipped = PixelDigest(), _Shown(self._config, self._shown), []
        behind = None
        if self._moments is not None:
            self._moments.begin()
        for batch in inputs.evaluation_pass(self._config, self._source, self._mesh.size):
            skipped.append(batch["skipped"])
            images, mask = sharding.shard_batch(self._mesh, (batch["image"], batch["mask"]))
            found = self._step(state, metrics, images, mask, self._weights)
            metrics, reconstructions, *features = found
            if self._moments is not None:
                self._moments.add(images, reconstructions, batch["mask"], *features)
            # While the devices have work: what the host does, and what the batch before left.
            pixels.add(batch)
            # One batch ahead and no further: what waits for a slow device would fill its memory.
            shown.add(behind)
            behind = batch, reconstructions
            if progress is not None:
                progress(int(np.sum(batch["index"] >= 0)))
        shown.add(behind)
        self._bad_images.record_of_all(skipped)
        values = {f"eval/{name}": value for name, value in scalars(metrics).items()}
        digest, count = pixels.of_all()
        if self._moments is not None:
            values |= self._moments.distance(digest)
        data, side = self._config.data, inputs.evaluation_side(self._config)
        return Evaluation(
            values,
            np.asarray(metrics.usage.counts, np.int64),
            np.asarray(self._codewords(state.evaluated)),
            *shown.in_order(),
            count,
            digest,
            evaluated_images(data.source, data.eval_split, count, side),
        )


class _Shown:
    """The images that are shown, and their reconstructions, from all processes."""

    def __init__(self, config, wanted):
        side = inputs.evaluation_side(config)
        self._wanted = wanted
        # The empty ones give their shapes where this process sees none.
        self._numbers, self._pairs = (
            [np.zeros(0, np.int32)],
            [np.zeros((0, 2, side, side, 3), "u1")],
        )

    def add(self, computed):
        """Waits for a batch and its reconstructions, and takes those that are shown; None: none."""
        if computed is None:
            return
        batch, reconstructions = computed
        jax.block_until_ready(reconstructions)
        rows = [row for row, index in enumerate(batch["index"]) if int(index) in self._wanted]
        if rows:
            local = sharding.local_rows(reconstructions)
            self._numbers.append(batch["index"][rows].astype(np.int32))
            self._pairs.append(np.stack([batch["image"][rows], local[rows]], axis=1))

    def in_order(self):
        """(originals, reconstructions), u8[N, H, W, 3]."""
        own = np.concatenate(self._numbers), np.concatenate(self._pairs)
        numbers, pairs = (np.concatenate(gather(rows)) for rows in own)
        pairs = pairs[np.argsort(numbers)]
        return pairs[:, 0], pairs[:, 1]
