"""Features of training images, of which k-means makes a base."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mq_jax.data.inputs import first_images
from mq_jax.data.sources import Source
from mq_jax.images.scale import from_uint8
from mq_jax.models import lpips
from mq_jax.models.lpips_weights import load_weights
from mq_jax.quantizers.sphere import unit_vectors
from mq_jax.training.build import Built
from mq_jax.training.quantizing import VGG_PIXELS, VGG_STAGE, feature_width

# Images at a time, on one device; BatchNorm's statistics are those of as many.
BATCH = 32

# As many as a k-means needs and no more than 1 GiB.
_FEATURES_PER_CODEWORD = 32
_MOST_NUMBERS = 2**28


def feature_count(config: ConfigDict, positions: int) -> tuple[int, int]:
    """How many features k-means is given.

    Args:
      config: validated.
      positions: features of one image.

    Returns:
      (images, features of each).
    """
    codebook = config.codebook
    images = -(-codebook.base_images // BATCH) * BATCH
    width = feature_width(config)
    if codebook.features == "encoder":
        width = codebook.dim
    wanted = min(_FEATURES_PER_CODEWORD * codebook.size, _MOST_NUMBERS // width)
    return images, min(positions, -(-wanted // images))


def positions(config: ConfigDict, downsampling: int) -> int:
    """Features of one image.

    Args:
      config: validated.
      downsampling: pixels to a code, along one side.

    Returns:
      Their number, at data.image_size.
    """
    pixels = downsampling if config.codebook.features == "encoder" else VGG_PIXELS
    return (config.data.image_size // pixels) ** 2


def sampled_features(
    config: ConfigDict, built: Built, source: Source, model: Mapping[str, Any]
) -> np.ndarray:
    """Features of the first images of the training, in this process and on one of its devices.

    Of an image with more than are wanted some are drawn, without return. The same whatever the
    devices and processes of the run.

    Args:
      config: validated, with base kmeans.
      built: of it.
      source: that of the inner level.
      model: as draw_model's: features of the encoder are of it.

    Returns:
      f32[N, width]: all D channels of z, or VGG's features over their norms.

    Raises:
      ValueError: too many images in a row cannot be read.
    """
    variables, function = _make_features(config, built, model)
    there = positions(config, built.objective.autoencoder.downsampling)
    images, wanted = feature_count(config, there)
    # The two levels have 0 and 1.
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, 2)))
    rows = []
    for batch in first_images(config, source, count=images, batch_size=BATCH):
        found = np.asarray(function(variables, batch))
        order = np.broadcast_to(np.arange(there), found.shape[:2])
        chosen = rng.permuted(order, axis=1)[:, :wanted]
        rows.append(
            np.take_along_axis(found, chosen[..., None], axis=1).reshape(-1, found.shape[2])
        )
    return np.concatenate(rows)


def _make_features(config: ConfigDict, built: Built, model: Mapping) -> tuple[Any, Callable]:
    """What the function is given first, and it: u8[B, S, S, 3] -> f32[B, positions, width]."""

    def flat(features):
        return features.reshape(len(features), -1, features.shape[-1])

    if config.codebook.features == "vgg":

        def patches(weights, images):
            found = lpips.feature_map(weights, from_uint8(images), net="vgg", stage=VGG_STAGE)
            return flat(unit_vectors(found))

        return load_weights("vgg", config.perceptual.dir), jax.jit(patches)

    autoencoder = built.objective.autoencoder

    def encodings(variables, images):
        # As the first step of the training sees them; the running statistics may be of nothing.
        z, _ = autoencoder.apply(
            variables, from_uint8(images), train=True, method="encode", mutable=["batch_stats"]
        )
        return flat(z[..., : config.codebook.dim]).astype(jnp.float32)

    variables = {"params": model["params"].autoencoder, "batch_stats": model["batch_stats"]}
    return variables, jax.jit(encodings)
