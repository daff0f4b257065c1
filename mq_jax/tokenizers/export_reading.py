"""Reading an export: no pickle, every byte accounted for by the fingerprint."""

import json
import os
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors

from mq_jax.devices.places import local_path
from mq_jax.devices.reading import open_regular, require_regular
from mq_jax.runs import orbax_noise
from mq_jax.runs.plain_path import plain_path
from mq_jax.tokenizers.export import Export, from_named

FOLDER = "export"
SAFETENSORS = "tokenizer.safetensors"
ORBAX = "orbax"

# Under this key of a safetensors header, whose values are texts, lies Export.header as JSON.
HEADER_KEY = "mq_jax"

_REMEDY = "export the model again, or copy the whole file again"


def read_export(path: str | os.PathLike) -> Export:
    """Reads an export in whichever format is there.

    Args:
      path: an export folder, the folder of a run that has one, the safetensors file or the Orbax
        folder.

    Returns:
      An Export, its fingerprint checked.

    Raises:
      FileNotFoundError: there is no export; says how to make one.
      ValueError: it is damaged, truncated or of an unknown version.
    """
    path = local_path(path, "The tokenizer")
    for folder in (path, path / FOLDER):
        if (folder / SAFETENSORS).is_file():
            return read_safetensors(folder / SAFETENSORS)
        if (folder / ORBAX).is_dir():
            return read_orbax(folder / ORBAX)
    if path.is_file():
        return read_safetensors(path)
    if (path / "weights").is_dir() or (path / "header").is_dir():
        return read_orbax(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected an exported tokenizer.")
    command = f"python -m mq_jax.main --mode=export --workdir={path}"
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
        # What follows maps the file: of a FIFO it would wait for a writer.
        open_regular(path).close()
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER_KEY])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = orbax_noise.one_line(error)
        raise ValueError(f"{path} is no whole safetensors file ({reason}); {_REMEDY}.") from error
    except KeyError as error:
        raise ValueError(
            f"{path} was not exported by mq_jax: its metadata has no {HEADER_KEY!r}; expected "
            f"{SAFETENSORS} of an export."
        ) from error
    return from_named(header, arrays, path)


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
        require_regular(path)
        checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        with plain_path(path) as place, checkpointer:
            handler = ocp.StandardCheckpointHandler()
            stored = handler.metadata(place / "weights").tree
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            target = {
                name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
                for name, leaf in stored.items()
            }
            items = {"weights": ocp.args.StandardRestore(target), "header": ocp.args.JsonRestore()}
            restored = checkpointer.restore(place, args=ocp.args.Composite(**items))
    # Orbax raises anything from KeyError to its own for damaged files.
    except Exception as error:
        reason = orbax_noise.one_line(error)
        raise ValueError(f"{path} is no whole Orbax folder ({reason}); {_REMEDY}.") from error
    arrays = {name.replace(".", "/"): np.asarray(leaf) for name, leaf in restored.weights.items()}
    return from_named(restored.header, arrays, path)
