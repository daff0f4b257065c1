"""Generated images measured against a reference: one pass over either set, and the protocol."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mq_jax.devices import sharding
from mq_jax.evaluation.image_sets import ImageSet
from mq_jax.evaluation.protocol import COMPUTATION, VERSION, computing_device
from mq_jax.evaluation.references import (
    Measured,
    brings_moments,
    load_reference_set,
    published_moments,
    reference_key,
    save_reference_set,
)
from mq_jax.metrics.fingerprint import PixelDigest
from mq_jax.metrics.generation import (
    MOST_NEIGHBOURS,
    SetStatistics,
    generation_metrics,
    merged,
    neighbourhood,
)
from mq_jax.metrics.manifold import NEIGHBOURS
from mq_jax.metrics.spaces import SMALLEST_SIDE, Activations, Space


class SampleEvaluation(NamedTuple):
    """What was measured of generated images.

    Attributes:
      metrics: name -> value.
      images: their number.
      pixels: digest of them.
      protocol: that of the evaluation, fit for JSON, without any path: equal ones mean that the
        numbers compare.
    """

    metrics: dict[str, float]
    images: int
    pixels: str
    protocol: dict[str, Any]


def evaluate_samples(
    samples: ImageSet,
    reference: ImageSet,
    spaces: Sequence[Space],
    mesh: Mesh,
    *,
    names: Collection[str] | None = None,
    batch_size: int = 64,
    directory: pathlib.Path | None = None,
    progress: Callable[[int], Any] | None = None,
) -> SampleEvaluation:
    """Measures generated images against a reference; a call of one process.

    Args:
      samples: the generated images.
      reference: of the same side.
      spaces: in which they are measured, one after another.
      mesh: over whose devices images are split.
      names: what is asked for; None: all that the spaces have.
      batch_size: images at a time.
      directory: of statistics of references that are kept; None: they are computed.
      progress: told the number of further images, of either set.

    Returns:
      A SampleEvaluation.

    Raises:
      ValueError: the sets do not go together, or an image cannot be read.
    """
    names = [n for space in spaces for n in space.names if names is None or n in names]
    _require_comparable(samples, reference, names)
    metrics, measures = {}, {}
    for space in spaces:
        measurer = Measurer(space, mesh, batch_size)
        found = _reference(measurer, reference, directory, progress)
        own = measurer.statistics(samples, progress=progress)
        metrics |= generation_metrics(own.statistics, found.statistics, space, names)
        measures |= _measures(space, reference, names)
    protocol = {
        "version": VERSION,
        "data": reference.card(found.images, found.pixels),
        "samples": {"images": own.images, "image_size": samples.side},
        "measures": measures,
        COMPUTATION: {
            "precision": {"features": "float32, highest", "moments": "float64"},
            "device": computing_device(),
        },
    }
    return SampleEvaluation(metrics, own.images, own.pixels, protocol)


def _measures(space, reference, names) -> dict[str, dict[str, Any]]:
    """What the protocol says of each measure, and of the part of the reference that it sees."""
    card = {name: own for name, own in space.card().items() if name in names}
    published = brings_moments(reference, space)
    whole = f"moments of the file {reference.sha256}" if published else "all images"
    for name in {space.frechet, space.spatial} & set(card):
        card[name] = {**card[name], "reference": whole}
    for name in {space.precision, space.recall} & set(card):
        card[name] = {**card[name], "reference": f"{MOST_NEIGHBOURS} images at most, evenly spread"}
    return card


class Measurer:
    """Statistics of sets in one space; compiles once for each side of images.

    Args:
      space: the feature space.
      mesh: over whose devices images are split; all of them of this process.
      batch_size: images at a time, rounded up to a multiple of the devices.
    """

    def __init__(self, space: Space, mesh: Mesh, batch_size: int):
        self.space, self._mesh = space, mesh
        self._rows = -(-batch_size // mesh.size) * mesh.size
        self._weights = jax.device_put(space.weights, sharding.replicated(mesh))
        self._function = jax.jit(space.function, out_shardings=sharding.split(mesh))

    def statistics(
        self,
        images: ImageSet,
        *,
        of_reference: bool = False,
        progress: Callable[[int], Any] | None = None,
    ) -> Measured:
        """One pass over a set.

        Args:
          images: the set.
          of_reference: whether features of no more than MOST_NEIGHBOURS images are kept, and no
            Inception score is summed.
          progress: told the number of further images.

        Returns:
          A Measured.

        Raises:
          ValueError: an image cannot be read, or the set has none.
        """
        digest = PixelDigest()
        kept = neighbourhood(images.count) if of_reference else np.ones(images.count, bool)
        empty = SetStatistics.empty(self.space, scored=not of_reference)
        parts = self._parts(images, digest, kept, not of_reference, progress)
        found = merged(itertools.chain([empty], parts))
        pixels, count = digest.of_all()
        return Measured(found, count, pixels)

    def _parts(self, images, digest, kept, scored, progress) -> Iterator[SetStatistics]:
        """The statistics of each block."""
        for places, block in images.blocks(self._rows):
            found = self._activations(block)
            mask = np.ones(len(block), np.float32)
            digest.add({"index": places, "image": block, "mask": mask})
            start = int(places[0]) if len(places) else 0
            yield SetStatistics.of(found, start, kept=kept[places], scored=scored)
            if progress is not None:
                progress(len(block))

    def _activations(self, images: np.ndarray) -> Activations:
        """Those of u8[b, S, S, 3], on the host."""
        padding = [(0, self._rows - len(images))] + [(0, 0)] * 3
        rows = sharding.shard_batch(self._mesh, np.pad(images, padding))
        found = self._function(self._weights, rows)
        return jax.tree.map(lambda array: sharding.local_rows(array)[: len(images)], found)


def _reference(measurer, images, directory, progress) -> Measured:
    """The statistics of a reference, those that are kept where there are some."""
    if directory is None:
        return _measured_reference(measurer, images, progress)
    key = reference_key(images, measurer.space)
    found = load_reference_set(directory, key, measurer.space)
    if found is None:
        found = _measured_reference(measurer, images, progress)
        save_reference_set(directory, key, found)
    elif progress is not None:
        progress(images.count)
    return found


def _measured_reference(measurer, images, progress) -> Measured:
    if not brings_moments(images, measurer.space):
        return measurer.statistics(images, of_reference=True, progress=progress)
    # Before the pass, since what is damaged shall be told at once.
    pooled, spatial = published_moments(images, measurer.space)
    found = measurer.statistics(images, of_reference=True, progress=progress)
    return found._replace(statistics=found.statistics._replace(moments=pooled, spatial=spatial))


def _require_comparable(samples, reference, names):
    """Raises where two sets do not go together, before anything is computed."""
    if samples.side != reference.side:
        raise ValueError(
            f"the samples have {samples.side} pixels a side and the reference {reference.side}; "
            "expected equal ones: of a data set, --config.data.eval_image_size makes them so."
        )
    for name in names:
        if samples.side < SMALLEST_SIDE.get(name, 1):
            raise ValueError(
                f"{name} needs images of {SMALLEST_SIDE[name]} pixels; these have {samples.side}."
            )
    least = min(samples.count, reference.count)
    if least <= NEIGHBOURS:
        raise ValueError(
            f"there are {samples.count} samples and {reference.count} reference images; expected "
            f"more than {NEIGHBOURS} of either."
        )
