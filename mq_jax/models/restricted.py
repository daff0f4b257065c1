"""Reading pickles of published weights, which could run code of their own."""

import pathlib
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

from mq_jax.storage.files import read_bytes

# The largest of the published files has 95 million.
MOST_BYTES = 2**28


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


class RestrictedUnpickler(pickle.Unpickler):
    """Builds what a table allows: any other global of a pickle could be a call to anything.

    Attributes:
      allowed: what stands for a global, by (module, name).
      refusal: the message for another one, with a place for its name.
    """

    allowed: ClassVar[Mapping[tuple[str, str], Any]]
    refusal: ClassVar[str]

    def find_class(self, module, name):
        """What stands for the allowed global of this name."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(self.refusal.format(f"{module}.{name}"))
        return self.allowed[module, name]
