"""Safetensors files, one or several with an index of them, as Hugging Face's libraries write."""

import contextlib
import pathlib
from collections.abc import Iterator

import safetensors

from mq_jax.storage.files import open_bounded
from mq_jax.storage.schema import TEXT, Each, read_json
from mq_jax.tensorfiles.arrays import MOST_BYTES, Arrays

# Behind the name of the file that there would be, were it one.
_INDEX = ".index.json"


@contextlib.contextmanager
def open_safetensors(path: pathlib.Path) -> Iterator[Arrays]:
    """The tensors of a file, or of the files that an index names.

    Args:
      path: of the file, there or beside it its index: "model.safetensors" where there are
        "model-00001-of-00002.safetensors" and so on.

    Yields:
      Arrays.

    Raises:
      FileNotFoundError: there is neither.
      ValueError: a file is truncated, damaged or of another format.
    """
    index = path.with_name(path.name + _INDEX)
    parts = [path.name]
    if not path.is_file() and index.is_file():
        named = read_json(index, {"weight_map": Each(TEXT)})["weight_map"]
        parts = sorted(set(named.values()))
    elsewhere = [part for part in parts if pathlib.PurePath(part).name != part]
    if elsewhere:
        raise ValueError(f"its index names {elsewhere[0]!r}; expected files beside it")
    with contextlib.ExitStack() as opened:
        shapes, files = {}, {}
        for part in parts:
            open_bounded(path.with_name(part), MOST_BYTES).close()
            file = opened.enter_context(_opened(path.with_name(part)))
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                shapes[name], files[name] = tuple(file.get_slice(name).get_shape()), file

        def read(names):
            return {name: files[name].get_tensor(name) for name in names}

        yield Arrays(shapes, read)


def _opened(path):
    try:
        return safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"no whole safetensors file ({error})") from error
