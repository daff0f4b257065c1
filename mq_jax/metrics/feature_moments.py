"""The Fréchet distance of an evaluation: features of originals and reconstructions, to moments.

The originals' moments are kept in memory, and on disk under the protocol that they belong to;
what lies there counts only for the very pixels that it was computed from.
"""

import collections
import hashlib
import json
import pathlib
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.data import inputs
from mq_jax.data.sources import Source
from mq_jax.devices import sharding
from mq_jax.devices.agreement import gather
from mq_jax.images.scale import from_uint8
from mq_jax.metrics.frechet import Moments, frechet_distance, load_reference, save_reference
from mq_jax.metrics.measures import Measures


class FeatureMoments:
    """Moments of one evaluation set's features; each process makes the same calls.

    Args:
      measures: with features.
      weights: the same as measures.weights, on the devices.
      mesh: from sharding.make_mesh.
      config: validated.
      source: from inputs.open_evaluation.
      directory: of the references on disk; None: they are kept in memory alone.
    """

    def __init__(
        self,
        measures: Measures,
        weights,
        mesh: Mesh,
        config: ConfigDict,
        source: Source,
        directory: pathlib.Path | None,
    ):
        self._weights, self._mesh, self._config, self._source = weights, mesh, config, source
        self._name, dim, function = measures.features
        self._empty = Moments.empty(dim)
        self._features = jax.jit(
            lambda weights, images: function(weights, from_uint8(images)),
            out_shardings=sharding.split(mesh),
        )
        key = json.dumps([_protocol(config, len(source)), measures.card[self._name]])
        self._directory, self._key = directory, hashlib.sha256(key.encode()).hexdigest()[:32]
        self._reference, self._pixels = None, ""
        self._pool = ThreadPoolExecutor(1)

    def begin(self) -> None:
        """Starts an evaluation: the reconstructions' moments are empty again."""
        if self._reference is None:
            self._find_reference()
        self._originals, self._reconstructions = self._sum(), self._sum()

    def add(
        self,
        images: jax.Array,
        reconstructions: jax.Array,
        mask: np.ndarray,
        of_images: jax.Array | None = None,
    ) -> None:
        """Adds a batch; its features are fetched while the devices compute the next ones.

        Args:
          images: u8[B, H, W, 3].
          reconstructions: u8[B, H, W, 3]; 8 bits, as a file would hold them.
          mask: f32[b], of this process's rows: 0 for one that does not count.
          of_images: f32[B, D], the features of `images`, where they are known.
        """
        of_reconstructions = self._features(self._weights, reconstructions)
        self._reconstructions.add(of_reconstructions, mask)
        if self._reference is None:
            if of_images is None:
                of_images = self._features(self._weights, images)
            self._originals.add(of_images, mask)

    def distance(self, pixels: str) -> dict[str, float]:
        """The distance between originals and reconstructions.

        Args:
          pixels: digest of the originals of this pass.

        Returns:
          {"eval/fid": ...} or {"eval/frechet_vgg": ...}, at least 0.
        """
        if self._reference is None:
            self._keep(gathered_moments(self._originals.total()), pixels)
        elif self._pixels != pixels:
            # The reference on disk is of other images under the same name.
            self._keep(gathered_moments(self._pass_over_originals()), pixels)
        reconstructions = gathered_moments(self._reconstructions.total())
        value = frechet_distance(self._reference, reconstructions)
        return {f"eval/{self._name}": value}

    def _pass_over_originals(self):
        """The originals' moments, this process's rows."""
        moments = self._sum()
        for batch in inputs.evaluation_pass(self._config, self._source, self._mesh.size):
            images = sharding.shard_batch(self._mesh, batch["image"])
            moments.add(self._features(self._weights, images), batch["mask"])
        return moments.total()

    def _sum(self):
        return _MomentsBehind(self._empty, self._pool)

    def _find_reference(self):
        """Takes the moments from the disk, where the first process finds some."""
        pixels = ""
        if jax.process_index() == 0:
            for path in self._kept():
                pixels = path.stem.rpartition("-")[2]
        # All processes compute the features of the originals, or none does.
        pixels = gather(np.frombuffer(pixels.encode(), np.uint8))[0].tobytes().decode()
        if not pixels:
            return
        reference = None
        if jax.process_index() == 0:
            dim = len(self._empty.total)
            reference = load_reference(self._path(pixels), pixels, dim)
        reference = gathered_moments(self._empty if reference is None else reference)
        if reference.count:
            self._reference, self._pixels = reference, pixels

    def _keep(self, reference, pixels):
        """Takes moments as the reference, in memory and on disk."""
        self._reference, self._pixels = reference, pixels
        if jax.process_index() or self._directory is None:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for old in self._kept():
                old.unlink(missing_ok=True)
            save_reference(self._path(pixels), reference, pixels)
        except OSError as error:
            # A convenience: the next evaluation computes them again.
            message = "The reference statistics cannot be kept in %s (%s); going on without"
            logging.warning(message, self._directory, error.strerror or error)

    def _kept(self):
        """The files of references for this protocol, one at most unless somebody copied some."""
        return [] if self._directory is None else sorted(self._directory.glob(f"{self._key}-*.npz"))

    def _path(self, pixels):
        return self._directory / f"{self._key}-{pixels}.npz"


def gathered_moments(moments: Moments) -> Moments:
    """The moments of all processes together, the same in each of them, bit for bit.

    Args:
      moments: of this process's rows; each process makes the same calls.

    Returns:
      Their sum, in the order of the processes.
    """
    own = np.concatenate([[float(moments.count)], moments.total, moments.outer.ravel()])
    dim, merged = len(moments.total), Moments.empty(len(moments.total))
    # As words of 32 bits, since JAX would round what has 64.
    for (words,) in gather(own.view(np.uint32)[None]):
        count, total, outer = np.split(words.view(np.float64), [1, 1 + dim])
        merged = merged.merge(Moments(int(count[0]), total, outer.reshape(dim, dim)))
    return merged


class _MomentsBehind:
    """Moments of batches, summed in their order by a thread while the devices go on.

    The outer products of a batch are D x D in float64, 32 MiB of Inception's features.
    """

    def __init__(self, empty: Moments, pool: ThreadPoolExecutor):
        self._moments, self._pool = empty, pool
        self._waiting = collections.deque[Future]()

    def add(self, features: jax.Array, mask: np.ndarray) -> None:
        """Takes f32[B, D] that may not be computed yet; this process's rows of mask 1 count."""
        self._waiting.append(self._pool.submit(self._merge, features, mask))
        # This batch and the one before may wait, no further: each is memory of a device.
        if len(self._waiting) > 2:
            self._waiting.popleft().result()

    def total(self) -> Moments:
        """The moments of all that was added."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._moments

    def _merge(self, features, mask):
        rows = sharding.local_rows(features)[mask > 0]
        self._moments = self._moments.merge(Moments.of(rows))


def _protocol(config, images):
    """What the originals of an evaluation are, as far as it is known before they are read."""
    data = config.data
    return {
        "source": data.source,
        "directory": data.dir,
        "split": data.eval_split,
        "images": images,
        "side": inputs.evaluation_side(config),
        "crop": data.crop,
        "resize": data.resize,
        "filter": data.filter,
        "icc": data.icc,
        # References of before were rounded to TF32 on GPUs; those of today are not.
        "products": "highest",
    }
