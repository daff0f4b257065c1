"""Reading an export: no pickle, every byte accounted for by the fingerprint."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

from mq_jax.devices.places import local_path
from mq_jax.runs import orbax_noise
from mq_jax.storage.files import open_bounded
from mq_jax.storage.plain_path import plain_path
from mq_jax.tokenizers.export import Export
from mq_jax.tokenizers.export_checking import REMEDY, from_named, require_arrays, require_header
from mq_jax.tokenizers.export_folder import FOLDER, nothing_exported
from mq_jax.tokenizers.programs import is_program
from mq_jax.tokenizers.tensors import MOST_BYTES, file_of, read_tensors

SAFETENSORS = file_of("tokenizer")
ORBAX = "orbax"

# Orbax parses these as a whole.
_DESCRIPTIONS = ("_METADATA", "_CHECKPOINT_METADATA", "metadata", "manifest.ocdbt", ".zarray")
_MOST_DESCRIPTION = 2**24


def read_export(path: str | os.PathLike) -> Export:
    """Reads an export in whichever format is there.

    Args:
      path: an export folder, the folder of a run that has one, the safetensors file or the Orbax
        folder.

    Returns:
      An Export, its fingerprint checked.

    Raises:
      FileNotFoundError: there is no export; says how to make one.
      ValueError: it is damaged, truncated, of an unknown version, or a StableHLO program.
    """
    path = local_path(path, "The tokenizer")
    for folder in (path, path / FOLDER):
        if (folder / SAFETENSORS).is_file():
            return read_safetensors(folder / SAFETENSORS)
        if (folder / ORBAX).is_dir():
            return read_orbax(folder / ORBAX)
        if (folder / file_of("prior")).is_file():
            raise ValueError(
                f"{folder} is the export of a prior, the second stage; expected that of a "
                "tokenizer. mq_jax.samplers.read_prior reads a prior's."
            )
    if path.is_file() and is_program(path):
        raise ValueError(
            f"{path} is a StableHLO program, a part of an export; expected the folder of "
            f"its export, or {SAFETENSORS} in it. mq_jax.tokenizers.read_program reads a program."
        )
    if path.is_file():
        return read_safetensors(path)
    if (path / "weights").is_dir() or (path / "header").is_dir():
        return read_orbax(path)
    raise nothing_exported(path, "tokenizer")


def read_safetensors(path: pathlib.Path) -> Export:
    """Reads the safetensors file.

    Args:
      path: of the file.

    Returns:
      An Export.

    Raises:
      ValueError: it is damaged, of another format or of an unknown version.
    """

    def require(header, declared):
        require_header(header, path)
        require_arrays(header, declared, path)

    return from_named(*read_tensors(path, "tokenizer", require), path)


def read_orbax(path: pathlib.Path) -> Export:
    """Reads the Orbax folder.

    Args:
      path: of the folder.

    Returns:
      An Export.

    Raises:
      ValueError: it is damaged, of another format or of an unknown version.
    """
    orbax_noise.silence()
    try:
        _require_bounded_files(path)
        with _orbax(path) as (checkpointer, place):
            items = ocp.args.Composite(header=ocp.args.JsonRestore())
            header = checkpointer.restore(place, args=items).header
            stored = ocp.StandardCheckpointHandler().metadata(place / "weights").tree
            declared = {
                name.replace(".", "/"): (list(leaf.shape), np.dtype(leaf.dtype).name)
                for name, leaf in stored.items()
            }
    # Orbax raises anything from KeyError to its own for damaged files.
    except Exception as error:
        raise _not_whole(path, error) from error
    require_header(header, path)
    require_arrays(header, declared, path)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
        for name, leaf in stored.items()
    }
    try:
        with _orbax(path) as (checkpointer, place):
            items = ocp.args.Composite(weights=ocp.args.StandardRestore(target))
            weights = checkpointer.restore(place, args=items).weights
    except Exception as error:
        raise _not_whole(path, error) from error
    arrays = {name.replace(".", "/"): np.asarray(leaf) for name, leaf in weights.items()}
    return from_named(header, arrays, path)


@contextlib.contextmanager
def _orbax(path: pathlib.Path) -> Iterator[tuple[ocp.Checkpointer, pathlib.Path]]:
    """What reads an Orbax folder, and the path under which it can."""
    with (
        plain_path(path) as place,
        ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer,
    ):
        yield checkpointer, place


def _require_bounded_files(path: pathlib.Path) -> None:
    """Raises where a file is none that can be read to its end: a pipe, or a device by a link."""
    for file in path.rglob("*"):
        if not file.is_dir():
            described = file.name in _DESCRIPTIONS
            open_bounded(file, _MOST_DESCRIPTION if described else MOST_BYTES).close()


def _not_whole(path, error):
    reason = orbax_noise.one_line(error)
    return ValueError(f"{path} is no whole Orbax folder ({reason}); {REMEDY}.")
