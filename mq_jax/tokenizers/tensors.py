"""The safetensors file of an export: arrays by name, and in its metadata a header of JSON."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mq_jax.runs import orbax_noise
from mq_jax.storage.files import open_bounded
from mq_jax.storage.schema import parse
from mq_jax.tokenizers.export_checking import REMEDY

# Under this key of the metadata, whose values are texts, lies the header of what was exported.
KEYS = {"tokenizer": "mq_jax", "prior": "mq_jax_prior"}

# Of a file's arrays, which its header must ask for; the largest tokenizers have one or two.
MOST_BYTES = 2**34

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def file_of(kind: str) -> str:
    """The name of the file in an export of this kind, one of KEYS."""
    return f"{kind}.safetensors"


def write_tensors(
    path: pathlib.Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes a file.

    Args:
      path: of the file.
      kind: of what is exported, one of KEYS.
      header: fit for JSON.
      arrays: by name.

    Raises:
      OSError: it cannot be written.
    """
    metadata = {KEYS[kind]: json.dumps(header)}
    # save_file would make a file that only its owner may read.
    path.write_bytes(safetensors.numpy.save(dict(arrays), metadata=metadata))


def read_tensors(
    path: pathlib.Path, kind: str, require: Callable[[Any, Mapping[str, tuple]], None]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a file, whose arrays are read only once they are those that its header asks for.

    Args:
      path: of the file.
      kind: of what it must be, one of KEYS.
      require: of the header and of what the file declares, (shape, dtype's name) by name; raises
        ValueError where either is wrong.

    Returns:
      (header, arrays by name).

    Raises:
      ValueError: it is damaged, of another format or of another kind.
    """
    try:
        open_bounded(path, MOST_BYTES).close()
        with safetensors.safe_open(path, framework="numpy") as file:
            header = _header(file.metadata() or {}, kind, path)
            names = list(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            declared = {
                name: (list(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()))
                for name, part in slices.items()
            }
            require(header, declared)
            arrays = {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise _not_whole(path, error) from error
    return header, arrays


def _header(metadata: Mapping[str, str], kind: str, path: pathlib.Path) -> Any:
    """The header out of the metadata."""
    for other, key in KEYS.items():
        if other != kind and key in metadata:
            raise ValueError(f"{path} is of an exported {other}; expected an exported {kind}.")
    if KEYS[kind] not in metadata:
        raise ValueError(
            f"{path} was not exported by mq_jax: its metadata has no {KEYS[kind]!r}; expected "
            f"{file_of(kind)} of an export."
        )
    try:
        return parse(metadata[KEYS[kind]])
    except ValueError as error:
        raise _not_whole(path, error) from error


def _not_whole(path, error):
    reason = orbax_noise.one_line(error)
    return ValueError(f"{path} is no whole safetensors file ({reason}); {REMEDY}.")
