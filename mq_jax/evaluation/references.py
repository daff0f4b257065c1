"""Statistics of reference sets, kept under the protocol that they belong to."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import NamedTuple

import numpy as np
from absl import logging

from mq_jax.evaluation.image_sets import MOST_BYTES, ArchiveImages, ImageSet
from mq_jax.metrics.frechet import Moments
from mq_jax.metrics.generation import MOST_NEIGHBOURS, SetStatistics
from mq_jax.metrics.spaces import Space
from mq_jax.storage.archive import Stored, array_shape, read_arrays
from mq_jax.storage.files import replacing

# Counts up when what is kept changes its meaning.
_VERSION = 1

# As ADM's references name the moments of pooled and of spatial features.
_PUBLISHED = ("mu", "sigma", "mu_s", "sigma_s")

_TEXT, _COUNT, _VECTOR, _MATRIX = (
    Stored(*rule) for rule in (("U", 0), ("iu", 0), ("f", 1), ("f", 2))
)
_STORED = {
    **{"key": _TEXT, "pixels": _TEXT, "images": _COUNT, "features": _MATRIX},
    **{"count": _COUNT, "total": _VECTOR, "outer": _MATRIX},
}
_SPATIAL = {"spatial_count": _COUNT, "spatial_total": _VECTOR, "spatial_outer": _MATRIX}


class Measured(NamedTuple):
    """What one pass over a set found.

    Attributes:
      statistics: of its images.
      images: their number, the readable ones.
      pixels: digest of them.
    """

    statistics: SetStatistics
    images: int
    pixels: str


def reference_key(images: ImageSet, space: Space) -> str:
    """What the statistics of a reference depend on, in 32 digits.

    Args:
      images: the reference.
      space: in which it is measured.

    Returns:
      A digest of the data, its geometry, the network with its input, and the number of images.
    """
    measured = [space.names, space.network, MOST_NEIGHBOURS]
    told = [_VERSION, images.identity(), images.count, images.side, measured]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def load_reference_set(directory: pathlib.Path, key: str, space: Space) -> Measured | None:
    """Reads the statistics of a reference.

    Args:
      directory: where they are kept.
      key: from reference_key.
      space: in which they were measured.

    Returns:
      They; None where there are none, or, which is logged, others or damaged ones.
    """
    path = _path(directory, key)
    if not path.exists():
        return None
    try:
        stored = read_arrays(path, _STORED | (_SPATIAL if space.spatial else {}))
        found = str(stored["key"])
        if found != key:
            raise ValueError(f"it is of {found[:64]!r}")
        return Measured(_statistics(stored, space), int(stored["images"]), str(stored["pixels"]))
    except (OSError, ValueError) as error:
        logging.warning("The reference statistics %s are damaged (%s); leaving them", path, error)
        return None


def save_reference_set(directory: pathlib.Path, key: str, measured: Measured) -> None:
    """Keeps the statistics of a reference, whole or not at all.

    Args:
      directory: where they are kept; created.
      key: from reference_key.
      measured: from a pass over the reference.
    """
    moments, features, spatial, _ = measured.statistics
    arrays = {"features": features, **moments._asdict()}
    if spatial is not None:
        arrays |= {f"spatial_{name}": value for name, value in spatial._asdict().items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(_path(directory, key)) as temporary, open(temporary, "wb") as file:
            told = {"key": key, "pixels": measured.pixels, "images": measured.images}
            np.savez(file, **told, **arrays)
    except OSError as error:
        # A convenience: the next evaluation computes them again.
        message = "The reference statistics cannot be kept in %s (%s); going on without"
        logging.warning(message, directory, error.strerror or error)


def brings_moments(images: ImageSet, space: Space) -> bool:
    """Whether a reference brings moments of a larger set with its images, as ADM's do.

    Args:
      images: the reference.
      space: Inception's, whose moments they are; other spaces have none.

    Returns:
      True for an archive with all four arrays.
    """
    archive = bool(space.spatial) and isinstance(images, ArchiveImages)
    return archive and set(_PUBLISHED) <= set(images.names)


def published_moments(images: ArchiveImages, space: Space) -> tuple[Moments, Moments]:
    """The moments that a reference brings.

    Args:
      images: the reference, of which brings_moments is true.
      space: Inception's.

    Returns:
      Those of pooled and of spatial features.

    Raises:
      ValueError: they are damaged, or of another network.
    """
    rules = dict(zip(_PUBLISHED, (_VECTOR, _MATRIX) * 2, strict=True))
    pooled, spatial = (space.dim,), (space.spatial_dim,)
    shapes = dict(zip(_PUBLISHED, (pooled, pooled * 2, spatial, spatial * 2), strict=True))
    try:
        for name, shape in shapes.items():
            # Before any is read: the file is larger than what is usually read of one.
            found = array_shape(images.path, name, rules[name], most=MOST_BYTES)
            if found != shape:
                raise ValueError(f"{name} is {list(found)}; expected {list(shape)}")
        stored = read_arrays(images.path, rules, most=MOST_BYTES)
        if not all(np.isfinite(array).all() for array in stored.values()):
            raise ValueError("they are not finite")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{images.path} has no sound {', '.join(_PUBLISHED)} ({error})."
        ) from error
    return (
        Moments.of_gaussian(stored["mu"], stored["sigma"]),
        Moments.of_gaussian(stored["mu_s"], stored["sigma_s"]),
    )


def _statistics(stored, space) -> SetStatistics:
    """The statistics of a file, checked."""
    moments = _moments(stored, "", space.dim)
    features, images = stored["features"].astype(np.float32), int(stored["images"])
    if features.shape[1] != space.dim or not 0 < len(features) <= min(images, MOST_NEIGHBOURS):
        raise ValueError(f"it has features {list(features.shape)} of {images} images")
    if not np.isfinite(features).all():
        raise ValueError("a feature is not finite")
    spatial = _moments(stored, "spatial_", space.spatial_dim) if space.spatial else None
    return SetStatistics(moments, features, spatial)


def _moments(stored, prefix, dim) -> Moments:
    count, total, outer = (stored[f"{prefix}{name}"] for name in Moments._fields)
    if total.shape != (dim,) or outer.shape != (dim, dim):
        raise ValueError(f"it has moments {total.shape} and {outer.shape}; expected {dim}")
    if count < 1 or not (np.isfinite(total).all() and np.isfinite(outer).all()):
        raise ValueError("its count or its sums are not finite and positive")
    return Moments(int(count), total.astype(np.float64), outer.astype(np.float64))


def _path(directory, key):
    return directory / f"generation-{key}.npz"
