"""Sets of finished images: generated ones, and the references that they are measured against."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from ml_collections import ConfigDict

from mq_jax.data import inputs
from mq_jax.data.folder import list_folder
from mq_jax.data.ledger import LEFT_OUT, BadImages
from mq_jax.data.sources import FolderSource, Source
from mq_jax.devices.reading import open_regular
from mq_jax.images.decode import USUAL
from mq_jax.storage.archive import Stored, array_names, array_shape, read_rows

# Of an archive, the array of its images, as the common evaluators have it.
IMAGES = "arr_0"

# 50,000 images of 512 pixels have 39 GB.
MOST_BYTES = 2**37
_STORED = Stored("u", 4)
_THREADS = 2


class Block(NamedTuple):
    """Some images of a set.

    Attributes:
      places: i64[B], their places in the set.
      images: u8[B, S, S, 3].
    """

    places: np.ndarray
    images: np.ndarray


class ImageSet(Protocol):
    """Images of one side, in an order."""

    @property
    def count(self) -> int:
        """Images, those included that turn out to be unreadable."""
        ...

    @property
    def side(self) -> int:
        """Pixels."""
        ...

    def identity(self) -> Any:
        """What tells the set from any other on this machine, fit for JSON; reads no pixel."""
        ...

    def card(self, images: int, pixels: str) -> dict[str, Any]:
        """What a protocol says of it, without any path; `images` of it with the digest `pixels`."""
        ...

    def blocks(self, rows: int) -> Iterator[Block]:
        """All images in order, up to `rows` at a time."""
        ...


def open_image_set(path: pathlib.Path) -> ImageSet:
    """Opens images that are taken as they are.

    Args:
      path: of an .npz file with `arr_0` u8[N, S, S, 3], or of a folder of images of one side, in
        the order of their names.

    Returns:
      An ImageSet.

    Raises:
      FileNotFoundError: there is nothing.
      ValueError: it is no such file or folder.
    """
    if path.is_dir():
        return FolderImages(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; expected an .npz file with {IMAGES}, or a folder of images."
        )
    return ArchiveImages(path)


class ArchiveImages:
    """The images of an .npz file."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        try:
            self.names = tuple(array_names(path, most=MOST_BYTES))
            shape = array_shape(path, IMAGES, _STORED, most=MOST_BYTES)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} holds no images ({error}).") from error
        self.count, height, width, channels = shape
        if channels != 3 or height != width or not height or not self.count:
            raise ValueError(
                f"{path} has {IMAGES} u8{list(shape)}; expected u8[N, S, S, 3] with some images."
            )
        self.side = height

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file."""
        with open_regular(self.path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def identity(self) -> list[str]:
        return ["npz", self.sha256]

    def card(self, images: int, pixels: str) -> dict[str, Any]:
        return _as_they_are("npz", IMAGES, images, pixels, self.side)

    def blocks(self, rows: int) -> Iterator[Block]:
        start = 0
        parts = read_rows(self.path, IMAGES, _STORED, rows, most=MOST_BYTES)
        try:
            for images in parts:
                if images.dtype != np.uint8:
                    raise ValueError(f"{IMAGES} is {images.dtype}; expected uint8")
                yield Block(start + np.arange(len(images)), images)
                start += len(images)
        except ValueError as error:
            raise ValueError(f"{self.path} cannot be read ({error}).") from error


class FolderImages:
    """The images of a folder, in the order of their names; each must be readable."""

    def __init__(self, path: pathlib.Path):
        self._source = FolderSource(str(path), list_folder(str(path), "all"), USUAL)
        self.count = len(self._source)
        self._first = self._source[0].image
        self.side = self._first.shape[0]
        self._square(0, self._first)

    def identity(self) -> list[Any]:
        return ["folder", _stamps(self._source)]

    def card(self, images: int, pixels: str) -> dict[str, Any]:
        return _as_they_are("folder", "all", images, pixels, self.side)

    def blocks(self, rows: int) -> Iterator[Block]:
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, self.count, rows):
                places = np.arange(start, min(start + rows, self.count))
                yield Block(places, np.stack(list(pool.map(self._image, places.tolist()))))

    def _image(self, place: int) -> np.ndarray:
        try:
            image = self._source[place].image
        except ValueError as error:
            raise ValueError(f"{self._source.name(place)}: {error}") from error
        return self._square(place, image)

    def _square(self, place: int, image: np.ndarray) -> np.ndarray:
        if image.shape != (self.side, self.side, 3):
            height, width = image.shape[:2]
            raise ValueError(
                f"{self._source.name(place)} has {height} x {width} pixels; expected "
                f"{self.side} x {self.side}, square and as large as the first image."
            )
        return image


class DataImages:
    """The images of a configuration's evaluation split, made as an evaluation makes them."""

    def __init__(self, config: ConfigDict):
        """Opens the split.

        Args:
          config: validated.

        Raises:
          FileNotFoundError: the data is not there.
          ValueError: there is no such split.
        """
        inputs.require_directory(config)
        self._config, self._source = config, inputs.open_evaluation(config)
        self.count = len(self._source)
        self.side = inputs.evaluation_side(config)

    def identity(self) -> list[Any]:
        data, facts = self._config.data, self._source.contents().facts
        geometry = [data.crop, data.resize, data.filter, data.icc, data.max_pixels, data.max_bytes]
        found = [data.source, data.dir, data.eval_split, facts, self.side, geometry]
        return [*found, _stamps(self._source)] if data.source == "folder" else found

    def card(self, images: int, pixels: str) -> dict[str, Any]:
        data = self._config.data
        return {
            **_as_they_are(data.source, data.eval_split, images, pixels, self.side),
            "crop": data.crop,
            "resize": data.filter if data.resize else "none",
            "crop_position": "centre",
            **({"icc": "to sRGB"} if data.icc else {}),
        }

    def blocks(self, rows: int) -> Iterator[Block]:
        bad = BadImages(self._source, self._config.data.max_bad_share, LEFT_OUT)
        config = self._config.copy_and_resolve_references()
        config.eval.batch_size = rows
        for batch in inputs.evaluation_pass(config, self._source, 1):
            bad.record(batch["skipped"])
            counts = batch["mask"] > 0
            yield Block(batch["index"][counts], batch["image"][counts])


def _as_they_are(source, split, images, pixels, side) -> dict[str, Any]:
    return {
        "source": source,
        "split": split,
        "images": images,
        "pixels": pixels,
        "image_size": side,
    }


def _stamps(source: Source) -> str:
    """A digest of the images' names, sizes and times: other pixels under a name have another."""
    digest = hashlib.sha256()
    for path in _paths(source):
        try:
            found = os.stat(path)
        except OSError:
            # Reading it says why; here it is one that cannot be read.
            stamp = "gone"
        else:
            stamp = f"{found.st_size} {found.st_mtime_ns}"
        digest.update(f"{path}\0{stamp}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _paths(source: Source) -> Sequence[str]:
    return [source.name(index) for index in range(len(source))]
