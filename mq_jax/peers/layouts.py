"""The order of axes in PyTorch's arrays and in ours."""

import numpy as np

# Of our axes, HWIO, those of PyTorch's OIHW, and back.
_OURS, _THEIRS = (2, 3, 1, 0), (3, 2, 0, 1)

LAYOUTS = ("conv", "dense", "vector", "table")


def ours(array: np.ndarray, layout: str) -> np.ndarray:
    """An array of PyTorch's as we have it.

    Args:
      array: conv f[O, I, H, W], dense f[O, I], vector f[C], table f[K, D].
      layout: one of LAYOUTS.

    Returns:
      conv f[H, W, I, O], dense f[1, 1, I, O], the others as they are.

    Raises:
      ValueError: it has another number of axes.
    """
    _require_axes(array.ndim, layout, {"conv": 4, "dense": 2, "vector": 1, "table": 2})
    if layout == "dense":
        return array.T[None, None]
    return array.transpose(_OURS) if layout == "conv" else array


def theirs(array: np.ndarray, layout: str) -> np.ndarray:
    """The inverse of `ours`.

    Args:
      array: as `ours` returns it.
      layout: one of LAYOUTS.

    Returns:
      As `ours` takes it.

    Raises:
      ValueError: it has another number of axes.
    """
    _require_axes(array.ndim, layout, {"conv": 4, "dense": 4, "vector": 1, "table": 2})
    if layout == "dense":
        return array[0, 0].T
    return array.transpose(_THEIRS) if layout == "conv" else array


def _require_axes(found, layout, expected):
    if found != expected[layout]:
        raise ValueError(f"it has {found} axes; expected {expected[layout]}")
