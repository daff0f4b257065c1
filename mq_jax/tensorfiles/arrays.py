"""The arrays of a file: their shapes at once, their numbers when asked for."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

# Of a file, or of files that belong together; the largest tokenizers have some gigabytes, with the
# states of their optimizers.
MOST_BYTES = 2**36


class Arrays(NamedTuple):
    """What a file holds.

    Attributes:
      shapes: by name, in the file's order.
      read: of names of these, the arrays, in the file's own dtypes; raises ValueError where the
        file does not have the bytes that it declares.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[Collection[str]], dict[str, np.ndarray]]
