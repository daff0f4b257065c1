"""What the files of a prepared set declare, looked at before TFDS imports what they name."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from mq_jax.devices.reading import read_regular

# TFDS takes the features from either.
_FILES = ("features.json", "dataset_info.json")
_KEYS = ("pythonClassName", "python_class_name")
_KNOWN = re.compile(r"tensorflow_datasets\.core\.features(\.[A-Za-z_]\w*)+")


def require_known_features(folder: pathlib.Path) -> None:
    """Checks that a set is made of TFDS's own features: another name is a module to be imported.

    Args:
      folder: of the prepared set.

    Raises:
      ValueError: a file names something else, or cannot be read.
    """
    for name in _FILES:
        path = folder / name
        try:
            declared = json.loads(read_regular(path).decode())
            foreign = next((n for n in _class_names(declared) if not _is_known(n)), None)
        except FileNotFoundError:
            continue
        # Python's own limit of depth is a RecursionError.
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}); copy the set again, or prepare it anew."
            ) from error
        if foreign is not None:
            raise ValueError(
                f"{path} names {foreign!r}, which reading the set would import and run; expected "
                "names in tensorflow_datasets.core.features alone. Prepare the set with features "
                "of TFDS."
            )


def _class_names(declared: Any) -> Iterator[Any]:
    """The values under keys that name a class, at any depth, also in texts that are JSON."""
    waiting = [declared]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            # As TFDS of before wrote it; a type without a content is that of a number, say.
            keys = (*_KEYS, "type") if "content" in value else _KEYS
            for key, inner in value.items():
                # Where a feature itself is called so, what it is lies deeper.
                if key in keys and not isinstance(inner, dict | list):
                    yield inner
                waiting.append(inner)
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            try:
                waiting.append(json.loads(value))
            # A description, say, that begins so.
            except ValueError:
                continue


def _is_known(name: Any) -> bool:
    return isinstance(name, str) and _KNOWN.fullmatch(name) is not None
