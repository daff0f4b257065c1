"""The paper's augmentations: crop, resize the smaller side, crop to size, flip.

| data set | crop | resize | image_size | flip |
|----------|------|--------|------------|------|
| CIFAR-10 | 0    | False  | 32         | 0.0  |
| CelebA   | 140  | True   | 128        | 0.0  |
| ImageNet | 0    | True   | 128        | 0.5  |
| FFHQ     | 0    | True   | 256        | 0.0  |

The filter belongs to every reported number: "area" averages the pixels it merges, "bilinear" is
the authors' OpenCV filter, which aliases when it shrinks.
"""

from collections.abc import Callable

import cv2
import numpy as np

FILTERS = ("area", "bilinear")

# Pixels of an enlarged image that is made whole before its crop; few images have more.
_LARGEST_ENLARGED = 2**24

# OpenCV's fixed point: weights of 11 bits.
_ONE = 2**11

# The pipeline runs its own threads and processes; OpenCV's would compete with them.
cv2.setNumThreads(0)


def make_train_transform(
    *, image_size: int, crop: int, resize: bool, flip: float, filter: str
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Makes the random augmentation of a training image.

    In this order: a random square crop, a resize of the smaller side, a random crop to the final
    size, a horizontal flip. An image smaller than a crop is first enlarged (bilinear) to it.

    Args:
      image_size: final side S, pixels.
      crop: side of the first crop, pixels; 0 leaves it out.
      resize: whether to scale the smaller side to `image_size`.
      flip: probability of the flip, in [0, 1].
      filter: one of FILTERS, used where `resize` shrinks.

    Returns:
      A function of image u8[H, W, 3] and a NumPy generator; it returns u8[S, S, 3].

    Raises:
      ValueError: an argument is out of range.
    """
    _check(image_size, crop, filter)
    if not 0 <= flip <= 1:
        raise ValueError(f"flip is {flip}; expected a probability in [0, 1].")

    def transform(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        def corner(slack: int) -> int:
            return int(rng.integers(slack + 1))

        image = _resize_and_crop(image, image_size, crop, resize, filter, corner)
        if flip and rng.random() < flip:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)

    return transform


def apply_transform(
    transform: Callable[..., np.ndarray], image: np.ndarray, *arguments: np.random.Generator
) -> np.ndarray:
    """Applies a transform to one image of many, of which some may be bad.

    Args:
      transform: from make_train_transform or make_eval_transform.
      image: u8[H, W, 3].
      arguments: the transform's others.

    Returns:
      The transform's result.

    Raises:
      ValueError: whatever the transform raised.
    """
    try:
        return transform(image, *arguments)
    # OpenCV's own, or the memory that an image of extreme sides would take.
    except Exception as error:
        height, width = image.shape[:2]
        raise ValueError(
            f"cannot crop and scale an image of {height} x {width} pixels "
            f"({type(error).__name__}: {error})."
        ) from error


def make_eval_transform(
    *, image_size: int, crop: int, resize: bool, filter: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the deterministic counterpart: centre crops, no flip.

    Args:
      image_size: final side S, pixels.
      crop: side of the first crop, pixels; 0 leaves it out.
      resize: whether to scale the smaller side to `image_size`.
      filter: one of FILTERS, used where `resize` shrinks.

    Returns:
      A function of image u8[H, W, 3]; it returns u8[S, S, 3].

    Raises:
      ValueError: an argument is out of range.
    """
    _check(image_size, crop, filter)

    def transform(image: np.ndarray) -> np.ndarray:
        image = _resize_and_crop(image, image_size, crop, resize, filter, lambda slack: slack // 2)
        return np.ascontiguousarray(image)

    return transform


def _resize_and_crop(image, image_size, crop, resize, filter, corner) -> np.ndarray:
    """The shared geometry; `corner(slack)` places a crop among `slack` + 1 offsets."""
    if crop:
        image = _square(image, crop, corner)
    if resize and min(image.shape[:2]) > image_size:
        shape = _scaled(image, image_size)
        area = filter == "area"
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
    return _square(image, image_size, corner)


def _square(image: np.ndarray, size: int, corner: Callable[[int], int]) -> np.ndarray:
    """A size × size crop, of an enlarged image where the given one is smaller."""
    height, width = image.shape[:2]
    smaller = min(height, width) < size
    if smaller:
        width, height = _scaled(image, size)
    top, left = corner(height - size), corner(width - size)
    if smaller and width * height > _LARGEST_ENLARGED:
        return _enlarged_window(image, (height, width), (top, left), size)
    if smaller:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image[top : top + size, left : left + size]


def _scaled(image: np.ndarray, size: int) -> tuple[int, int]:
    """Width and height at which the smaller side has `size` pixels, the aspect kept."""
    height, width = image.shape[:2]
    smaller = min(height, width)
    return round(width * size / smaller), round(height * size / smaller)


def _enlarged_window(
    image: np.ndarray, shape: tuple[int, int], corner: tuple[int, int], size: int
) -> np.ndarray:
    """The pixels that cv2.resize with INTER_LINEAR gives a square of its result, to the bit.

    Args:
      image: u8[h, w, 3].
      shape: (H, W) of the whole result, at least h and w.
      corner: (top, left) of the square in the result.
      size: its side S.

    Returns:
      u8[S, S, 3].
    """
    (top, left), (height, width) = corner, shape
    rows, lower = _weights(top, size, image.shape[0], height, clamped=False)
    columns, right = _weights(left, size, image.shape[1], width, clamped=True)
    first, last = rows.min(), rows.max() + 1
    # Only the pixels that the square is made of.
    image = image[first:last].astype(np.int64)
    near, far = image[:, columns[0]], image[:, columns[1]]
    blended = near * (_ONE - right)[:, None] + far * right[:, None]
    lower = lower[:, None, None]
    above, below = blended[rows[0] - first] >> 4, blended[rows[1] - first] >> 4
    # Rounded as OpenCV's vector instructions round: each product on its own, then their sum.
    total = ((above * (_ONE - lower)) >> 16) + ((below * lower) >> 16)
    return np.clip((total + 2) >> 2, 0, 255).astype(np.uint8)


def _weights(start, size, source, result, *, clamped):
    """For each pixel of the window: the two of the source, i[2, S], and the second one's weight."""
    position = ((np.arange(start, start + size) + 0.5) / (result / source) - 0.5).astype(np.float32)
    index = np.floor(position).astype(np.int64)
    weight = position - index.astype(np.float32)
    if clamped:
        weight[(index < 0) | (index >= source - 1)] = 0
    weight = np.rint(weight * np.float32(_ONE)).astype(np.int64)
    return np.clip([index, index + 1], 0, source - 1), weight


def _check(image_size: int, crop: int, filter: str) -> None:
    """Raises ValueError for arguments that both transforms refuse."""
    if image_size < 1:
        raise ValueError(f"image_size is {image_size}; expected at least 1 pixel.")
    if crop < 0:
        raise ValueError(f"crop is {crop}; expected a side in pixels, or 0 for no crop.")
    if filter not in FILTERS:
        raise ValueError(f"filter is {filter!r}; expected one of {FILTERS}.")
