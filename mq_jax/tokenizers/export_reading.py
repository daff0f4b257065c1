"""Reading an export: no pickle, every byte accounted for by the fingerprint."""

import contextlib
import os
import pathlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors

from mq_jax.devices.places import local_path
from mq_jax.runs import orbax_noise
from mq_jax.storage.files import open_bounded
from mq_jax.storage.plain_path import plain_path
from mq_jax.storage.schema import parse
from mq_jax.tokenizers.export import Export
from mq_jax.tokenizers.export_checking import REMEDY, from_named, require_arrays, require_header
from mq_jax.tokenizers.programs import is_program

FOLDER = "export"
SAFETENSORS = "tokenizer.safetensors"
ORBAX = "orbax"

# Under this key of a safetensors header, whose values are texts, lies Export.header as JSON.
HEADER_KEY = "mq_jax"

# Of a file's arrays, which its architecture must ask for; the largest tokenizers have one or two.
MOST_BYTES = 2**34

# Orbax parses these as a whole.
_DESCRIPTIONS = ("_METADATA", "_CHECKPOINT_METADATA", "metadata", "manifest.ocdbt", ".zarray")
_MOST_DESCRIPTION = 2**24

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


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
    if path.is_file() and is_program(path):
        raise ValueError(
            f"{path} is a StableHLO program, one direction of a tokenizer; expected the folder of "
            f"its export, or {SAFETENSORS} in it. mq_jax.tokenizers.read_program reads a program."
        )
    if path.is_file():
        return read_safetensors(path)
    if (path / "weights").is_dir() or (path / "header").is_dir():
        return read_orbax(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected an exported tokenizer.")
    command = f"python -m mq_jax.main --mode=export --workdir={shlex.quote(str(path))}"
    hint = f"make one: {command}" if (path / "config.json").is_file() else "it is no run either"
    raise FileNotFoundError(f"{path} has no exported tokenizer; {hint}.")


def read_safetensors(path: pathlib.Path) -> Export:
    """Reads the safetensors file.

    Args:
      path: of the file.

    Returns:
      An Export.

    Raises:
      ValueError: it is damaged, of another format or of an unknown version.
    """
    try:
        open_bounded(path, MOST_BYTES).close()
        with safetensors.safe_open(path, framework="numpy") as file:
            header = _header(file.metadata() or {}, path)
            names = list(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            declared = {
                name: (list(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()))
                for name, part in slices.items()
            }
            require_arrays(header, declared, path)
            arrays = {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise _not_whole(path, "safetensors file", error) from error
    return from_named(header, arrays, path)


def _header(metadata: Mapping[str, str], path: pathlib.Path) -> dict[str, Any]:
    """Export.header out of a safetensors file's metadata, checked."""
    if HEADER_KEY not in metadata:
        raise ValueError(
            f"{path} was not exported by mq_jax: its metadata has no {HEADER_KEY!r}; expected "
            f"{SAFETENSORS} of an export."
        )
    try:
        header = parse(metadata[HEADER_KEY])
    except ValueError as error:
        raise _not_whole(path, "safetensors file", error) from error
    require_header(header, path)
    return header


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
        raise _not_whole(path, "Orbax folder", error) from error
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
        raise _not_whole(path, "Orbax folder", error) from error
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


def _not_whole(path, kind, error):
    reason = orbax_noise.one_line(error)
    return ValueError(f"{path} is no whole {kind} ({reason}); {REMEDY}.")
