"""The order of axes in others' arrays and in ours: PyTorch's is another one, Flax's is ours."""

import numpy as np

# Of our axes, HWIO, those of PyTorch's OIHW, and back.
_OURS, _THEIRS = (2, 3, 1, 0), (3, 2, 0, 1)

# Axes that an array has there and here.
_AXES = {"conv": (4, 4), "dense": (2, 4), "vector": (1, 1), "table": (2, 2), "kernel": (4, 4)}

LAYOUTS = tuple(_AXES)


def ours(array: np.ndarray, layout: str) -> np.ndarray:
    """An array of others as we have it.

    Args:
      array: of PyTorch conv f[O, I, H, W], dense f[O, I], vector f[C], table f[K, D]; of Flax
        kernel f[H, W, I, O].
      layout: one of LAYOUTS.

    Returns:
      conv f[H, W, I, O], dense f[1, 1, I, O], the others as they are.

    Raises:
      ValueError: it has another number of axes.
    """
    _require_axes(array.ndim, _AXES[layout][0])
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
    _require_axes(array.ndim, _AXES[layout][1])
    if layout == "dense":
        return array[0, 0].T
    return array.transpose(_THEIRS) if layout == "conv" else array


def _require_axes(found, expected):
    if found != expected:
        raise ValueError(f"it has {found} axes; expected {expected}")
