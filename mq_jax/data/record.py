"""One example of a source."""

from typing import NamedTuple

import numpy as np


class Record(NamedTuple):
    """One example: image u8[H, W, 3] RGB, label (-1 where there is none)."""

    image: np.ndarray
    label: int
