"""A tokenizer's files as people have them: checkpoints, safetensors, the folder of a model."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from mq_jax.storage.files import open_bounded
from mq_jax.storage.schema import ANY, Each, read_json
from mq_jax.tensorfiles.arrays import MOST_BYTES, Arrays
from mq_jax.tensorfiles.msgpack_file import begins_as_msgpack, open_msgpack
from mq_jax.tensorfiles.safetensors_file import open_safetensors
from mq_jax.tensorfiles.torch_file import open_torch

# Of a folder, in the order in which they are looked for; the first two may be there in parts.
_SAFETENSORS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_IN_FOLDERS = (*_SAFETENSORS, "diffusion_pytorch_model.bin", "pytorch_model.bin")
_CONFIG = "config.json"

# Under which a training keeps its tensors, those that it evaluates with first.
_STATES = ("ema", "state_dict", "model")


def located(path: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """The file of a model's arrays, and what the model says of itself.

    Args:
      path: of a file, or of the folder of a model of `diffusers` or `transformers`.

    Returns:
      The file, which may be there in parts, and the config.json of its folder; {} without one,
      or beside a file of another name.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: config.json is damaged.
    """
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"--from={path} does not exist.")
        return path, _config_beside(path) if path.name in _IN_FOLDERS else {}
    for name in _IN_FOLDERS:
        in_parts = name in _SAFETENSORS and (path / f"{name}.index.json").is_file()
        if (path / name).is_file() or in_parts:
            return path / name, _config_beside(path / name)
    raise FileNotFoundError(
        f"--from={path} has none of {', '.join(_IN_FOLDERS)}; expected a file, or the folder of a "
        "model that has one of these."
    )


def _config_beside(file):
    """What the model says of itself."""
    config = file.with_name(_CONFIG)
    return read_json(config, Each(ANY)) if config.is_file() else {}


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Arrays]:
    """The arrays of a file.

    Args:
      path: from `located`.

    Yields:
      Arrays.

    Raises:
      ValueError: it is truncated, damaged or of no known kind.
      pickle.UnpicklingError: it names what it must not.
    """
    if path.suffix == ".safetensors":
        with open_safetensors(path) as arrays:
            yield arrays
        return
    with open_bounded(path, MOST_BYTES) as file:
        of_flax = begins_as_msgpack(file)
        with open_msgpack(file) if of_flax else open_torch(file, _state_of) as arrays:
            yield arrays


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """The files that hold the arrays.

    Args:
      path: from `located`.

    Returns:
      It, or its parts.
    """
    if path.is_file():
        return [path]
    stem, _, suffix = path.name.rpartition(".")
    return sorted(path.parent.glob(f"{stem}-*-of-*.{suffix}"))


def _state_of(held: Any) -> dict[str, Any]:
    """The tensors by name, wherever a training has them."""
    for name in _STATES:
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            return {str(key): value for key, value in held[name].items()}
    if not isinstance(held, dict):
        raise ValueError("it holds no dict of tensors")
    return {str(key): value for key, value in held.items()}
