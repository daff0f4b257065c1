"""Reading pickles of published weights, which could run code of their own."""

import pathlib
import pickle
import pickletools
import sys
from typing import BinaryIO

from mq_jax.storage.files import read_bytes

# The largest of the published files has 95 million.
MOST_BYTES = 2**28

# What a checkpoint of a training names of Python's own modules; of all other modules, anything.
_HARMLESS = (
    *("collections", "argparse", "pathlib", "typing", "enum", "copyreg", "datetime", "functools"),
    *("_codecs", "types", "uuid", "decimal", "fractions"),
)
_BUILTINS = (
    *("object", "type", "getattr", "set", "frozenset", "dict", "list", "tuple", "slice", "range"),
    *("int", "float", "bool", "complex", "str", "bytes", "bytearray", "Ellipsis", "NotImplemented"),
)


def content(path: pathlib.Path) -> bytes:
    """The bytes of a file of weights, whose hash is not looked at yet.

    Args:
      path: of the file.

    Returns:
      All of them.

    Raises:
      OSError: it cannot be read.
      ValueError: it is too large to be a published one, or no regular file.
    """
    try:
        return read_bytes(path, MOST_BYTES)
    except ValueError as error:
        raise ValueError(f"{path} holds no published weights: {error}.") from error


class Inert:
    """Stands for whatever a pickle builds beside its arrays: takes all, does and keeps nothing."""

    def __new__(cls, *_, **__):
        """One more that does nothing."""
        return super().__new__(cls)

    def __init__(self, *_, **__):
        """Keeps nothing."""

    def __call__(self, *_, **__):
        """What a call gives: likewise nothing."""
        return Inert()

    def _nothing(self, *_, **__):
        """Forgets what it is given."""

    # What a pickle calls on what it has built.
    __setstate__ = __setitem__ = append = extend = add = update = _nothing


def stand_in(module: str, name: str) -> type[Inert]:
    """What stands for a global that is not needed.

    Args:
      module: of the global.
      name: in it.

    Returns:
      Inert; nothing is imported.

    Raises:
      pickle.UnpicklingError: no training names it, but whoever wants code to run would.
    """
    top = module.partition(".")[0]
    known = top in sys.stdlib_module_names or top in ("__builtin__", "nt", "posix")
    builtin = module in ("builtins", "__builtin__") and name in _BUILTINS
    if known and not builtin and module not in _HARMLESS:
        raise pickle.UnpicklingError(
            f"it names {module}.{name}, for which weights have no use; nothing of it was run. "
            "Take the file from its authors"
        )
    return Inert


def require_modest(stream: BinaryIO) -> None:
    """Raises where a pickle would take more memory than its bytes account for.

    Args:
      stream: at the begin of a pickle, where it is left again.

    Raises:
      ValueError: it is truncated or damaged, or numbers its objects beyond any that it has.
    """
    start = stream.tell()
    try:
        for opcode, argument, place in pickletools.genops(stream):
            # Python makes room for all numbers below.
            if opcode.name == "LONG_BINPUT" and argument > place - start:
                raise ValueError(f"the object at byte {place - start} of a pickle is {argument}")
    except (IndexError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged ({error!r})") from error
    stream.seek(start)
