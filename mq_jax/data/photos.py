"""Six photographs that come inside installed packages: training data without a download.

From scikit-image: astronaut (Eileen Collins; NASA, public domain), chelsea (Stefan van der Walt,
CC0), coffee (Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0), rocket (SpaceX, public
domain). From scikit-learn, both CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/): china
(danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035) and flower (credited by
scikit-learn to danielbuechele, at https://www.flickr.com/photos/vultilion/6056698931).

Each photograph holds out one rectangle for validation; training sees only the up to four
rectangles around it, so no training pixel is a validation pixel. Training records of a rectangle
share its pixels: `train.outer_data` shares out the rectangles, not the records.
"""

import functools
import importlib.util
import pathlib
from typing import NamedTuple

import numpy as np

from mq_jax.images.decode import USUAL, Reading, read_image

SPLITS = ("train", "validation")
TILE = 128
MIN_SIDE = 64


class Box(NamedTuple):
    """A rectangle in pixels; x and y are its left and top edges."""

    x: int
    y: int
    width: int
    height: int


class Photo(NamedTuple):
    """One photograph: where it lies, its size, what it holds out."""

    package: str
    file: str
    width: int
    height: int
    held_out: Box


class Crop(NamedTuple):
    """One record: a rectangle of a named photograph."""

    photo: str
    box: Box


PHOTOS: dict[str, Photo] = {
    # The face.
    "astronaut": Photo("skimage", "data/astronaut.png", 512, 512, Box(166, 64, 128, 128)),
    # One eye in each tile.
    "chelsea": Photo("skimage", "data/chelsea.png", 451, 300, Box(110, 64, 256, 128)),
    # The cup.
    "coffee": Photo("skimage", "data/coffee.png", 600, 400, Box(168, 96, 256, 128)),
    # The nose of the rocket and its body.
    "rocket": Photo("skimage", "data/rocket.jpg", 640, 427, Box(256, 107, 128, 256)),
    # The middle storeys of the pagoda.
    "china": Photo("sklearn", "datasets/images/china.jpg", 640, 427, Box(80, 120, 256, 128)),
    # The heart of the flower.
    "flower": Photo("sklearn", "datasets/images/flower.jpg", 640, 427, Box(242, 158, 128, 128)),
}


def photo_crops(split: str) -> tuple[Crop, ...]:
    """Lists the records of a split.

    Validation: the held-out rectangles, cut into 128 × 128 tiles. Training: each rectangle as
    often as 64 × 64 crops cover its area, so that one epoch of such crops covers it about once.

    Args:
      split: one of SPLITS.

    Returns:
      The records, in the order of PHOTOS.

    Raises:
      ValueError: there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; the photos have {SPLITS}.")
    boxes_of = _training_records if split == "train" else _tiles
    return tuple(Crop(name, box) for name, photo in PHOTOS.items() for box in boxes_of(photo))


def training_boxes(photo: Photo) -> list[Box]:
    """The rectangles left, right, above and below the held-out one, at least 64 px a side."""
    held = photo.held_out
    right, bottom = held.x + held.width, held.y + held.height
    boxes = (
        Box(0, 0, held.x, photo.height),
        Box(right, 0, photo.width - right, photo.height),
        Box(held.x, 0, held.width, held.y),
        Box(held.x, bottom, held.width, photo.height - bottom),
    )
    return [box for box in boxes if min(box.width, box.height) >= MIN_SIDE]


def read_crop(crop: Crop, reading: Reading = USUAL) -> np.ndarray:
    """Cuts a record out of its photograph.

    Args:
      crop: from photo_crops.
      reading: how the photograph is read.

    Returns:
      u8[height, width, 3] RGB.

    Raises:
      FileNotFoundError: the package that carries the photograph is missing or carries no photos.
    """
    x, y, width, height = crop.box
    return _pixels(crop.photo, reading)[y : y + height, x : x + width].copy()


def _training_records(photo: Photo) -> list[Box]:
    """Each training rectangle, repeated in proportion to its area."""
    return [
        box
        for box in training_boxes(photo)
        for _ in range(round(box.width * box.height / MIN_SIDE**2))
    ]


def _tiles(photo: Photo) -> list[Box]:
    """The held-out rectangle in tiles of TILE × TILE."""
    x, y, width, height = photo.held_out
    return [
        Box(x + dx, y + dy, TILE, TILE)
        for dy in range(0, height, TILE)
        for dx in range(0, width, TILE)
    ]


@functools.cache
def _pixels(name: str, reading: Reading) -> np.ndarray:
    """A whole photograph, decoded once per process."""
    photo = PHOTOS[name]
    # By path: importing the packages is slow, and their loaders may download.
    spec = importlib.util.find_spec(photo.package)
    path = pathlib.Path(spec.origin).parent / photo.file if spec and spec.origin else None
    if path is None or not path.is_file():
        distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[photo.package]
        raise FileNotFoundError(
            f"the photo {name!r} is not at {path or photo.package}; it comes inside the package "
            f"{distribution}: run `pip install --force-reinstall {distribution}`."
        )
    return read_image(path, reading)
