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
    if resize:
        image = _scale_smaller_side(image, image_size, filter)
    return _square(image, image_size, corner)


def _square(image: np.ndarray, size: int, corner: Callable[[int], int]) -> np.ndarray:
    """A size × size crop, of an enlarged image where the given one is smaller."""
    if min(image.shape[:2]) < size:
        image = _scale_smaller_side(image, size, "bilinear")
    height, width = image.shape[:2]
    top, left = corner(height - size), corner(width - size)
    return image[top : top + size, left : left + size]


def _scale_smaller_side(image: np.ndarray, size: int, filter: str) -> np.ndarray:
    """The image scaled, aspect kept, so that its smaller side has `size` pixels."""
    height, width = image.shape[:2]
    smaller = min(height, width)
    if smaller == size:
        return image
    area = filter == "area" and smaller > size
    shape = (round(width * size / smaller), round(height * size / smaller))
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)


def _check(image_size: int, crop: int, filter: str) -> None:
    """Raises ValueError for arguments that both transforms refuse."""
    if image_size < 1:
        raise ValueError(f"image_size is {image_size}; expected at least 1 pixel.")
    if crop < 0:
        raise ValueError(f"crop is {crop}; expected a side in pixels, or 0 for no crop.")
    if filter not in FILTERS:
        raise ValueError(f"filter is {filter!r}; expected one of {FILTERS}.")
