"""Bases that are made of data: checked before a run begins, and made once, before step 0."""

import pathlib
import time
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mq_jax.data.sources import Source
from mq_jax.devices.agreement import gather, together
from mq_jax.devices.places import local_path
from mq_jax.models.lpips_weights import load_weights
from mq_jax.runs.base import Base, digest, read_base, write_base
from mq_jax.storage.archive import Stored, read_array, read_arrays
from mq_jax.training.build import Built, make_autoencoder
from mq_jax.training.centres import tables_of
from mq_jax.training.features import feature_count, positions, sampled_features
from mq_jax.training.quantizing import base_width, starts_from_tables

_TABLE = Stored("f", 2)


def require_base(config: ConfigDict, folder: pathlib.Path, *, started: bool) -> None:
    """Checks all that a base needs, as far as it is known before anything is computed.

    Args:
      config: validated.
      folder: of the run, or of none yet.
      started: whether the run has a checkpoint, which holds the base: nothing is needed then, and
        a file that is there must be the one that it was read from.

    Raises:
      FileNotFoundError: a file is not there.
      ValueError: a file is damaged, of another shape, or another one than that of the run; or
        the images have fewer features than there are codewords.
    """
    if not starts_from_tables(config) or jax.process_index():
        return
    codebook = config.codebook
    if started:
        if codebook.base == "file" and local_path(codebook.base_file, "").exists():
            _require_unchanged(config, folder)
        return
    if codebook.base == "file":
        read_table(config)
        return
    if codebook.features == "vgg":
        load_weights("vgg", config.perceptual.dir)
    images, each = feature_count(config, positions(config, make_autoencoder(config).downsampling))
    if images * each < codebook.size:
        raise ValueError(
            f"config.codebook.base_images is {codebook.base_images}, and {images:,} images have "
            f"{images * each:,} features {codebook.features!r}; expected at least "
            f"config.codebook.size, {codebook.size:,}."
        )


def starting_tables(
    config: ConfigDict,
    built: Built,
    source: Source,
    folder: pathlib.Path,
    model: Mapping[str, Any],
    taken: Collection[str] = (),
) -> np.ndarray | tuple:
    """The bases that a run starts from; each process of it makes this call.

    The first process makes them, on one of its devices, records them in the folder and tells
    them the others.

    Args:
      config: validated.
      built: of it.
      source: that of the inner level.
      folder: of the run, claimed.
      model: as draw_model's: features of the encoder are of it.
      taken: paths in it of what is of another run.

    Returns:
      f32[T, K, D_e], in the order of groups and, within one, of levels; () where bases are drawn,
      or taken.

    Raises:
      ValueError: there are fewer distinct features than codewords.
      FailedElsewhere: the first process failed.
    """
    of_codebook = "params/codebook/", "quantizer/"
    if not starts_from_tables(config) or any(name.startswith(of_codebook) for name in taken):
        return ()
    fields = config.quantizer
    count = fields.groups * (1 if fields.shared else fields.depth)
    tables = np.zeros((0, config.codebook.size, base_width(config)), np.float32)
    with together():
        if jax.process_index() == 0:
            begin = time.monotonic()
            if config.codebook.base == "file":
                tables = np.stack([read_table(config)] * count)
                told = f"file {config.codebook.base_file}"
            else:
                features = sampled_features(config, built, source, model)
                tables = tables_of(config, features)
                told = f"k-means of {len(features):,} features {config.codebook.features!r}"
            write_base(folder, Base(told, digest(tables)))
            logging.info("The codebook starts from %s; %.1f s", told, time.monotonic() - begin)
    return gather(tables)[0]


def read_table(config: ConfigDict) -> np.ndarray:
    """The base in the file of a configuration.

    Args:
      config: validated, with base file.

    Returns:
      f32[K, D_e].

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is damaged, of another shape, or not finite.
    """
    given = config.codebook.base_file
    path = local_path(given, "config.codebook.base_file")
    try:
        if path.suffix == ".npz":
            table = read_arrays(path, {"base": _TABLE})["base"]
        else:
            table = read_array(path, _TABLE)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.codebook.base_file {given} does not exist.") from error
    except ValueError as error:
        raise ValueError(
            f"config.codebook.base_file {given} cannot be read: {error}. Expected an .npy file, "
            "or an .npz file with the array `base`."
        ) from error
    expected = config.codebook.size, base_width(config)
    if table.shape != expected:
        raise ValueError(
            f"config.codebook.base_file {given} holds {list(table.shape)}; expected "
            f"{list(expected)}, a row for each codeword and a column for each channel."
        )
    table = table.astype(np.float32)
    if not np.isfinite(table).all():
        raise ValueError(
            f"config.codebook.base_file {given} holds what is not finite in float32; expected "
            "finite numbers."
        )
    return table


def _require_unchanged(config, folder):
    """Checks that the file is the one whose base the checkpoints of a run hold."""
    fields = config.quantizer
    count = fields.groups * (1 if fields.shared else fields.depth)
    recorded, table = read_base(folder), read_table(config)
    if recorded is not None and digest(np.stack([table] * count)) != recorded.sha256:
        raise ValueError(
            f"config.codebook.base_file {config.codebook.base_file} is not the file that the run "
            f"in {folder} started from. Put that one back, remove this one (the checkpoints hold "
            "the base), or give another --workdir."
        )
