"""A folder of samples: what they are of, a PNG file each, and all of them as evaluators read them.

    samples.json   settings, seed, number, step, fingerprints
    images/        000000.png and so on, and nothing else
    samples.npz    arr_0 u8[N, H, W, 3]; with classes, arr_1 i64[N]
    grid.png       the first of them

A sampling that was stopped goes on, one of more images too; one of other settings is refused. The
archive comes last.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from mq_jax.devices.cores import usable_cores
from mq_jax.images.decode import USUAL, read_image
from mq_jax.storage.archive_writing import Rows, write_archive
from mq_jax.storage.files import replacing, write_atomically
from mq_jax.storage.lock import held
from mq_jax.storage.schema import ANY, Each, read_json, shown
from mq_jax.tokenizers.items import Item, ahead
from mq_jax.tokenizers.pngs import png_paths, write_pngs
from mq_jax.tokenizers.stages import Stages

SETTINGS = "samples.json"
IMAGES = "images"
ARCHIVE = "samples.npz"
GRID = "grid.png"

_DIGITS = 6
_GRID_ROWS, _GRID_COLUMNS, _MOST_COLUMNS = 8, 8, 16
_REMEDY = "give another --output"


@contextlib.contextmanager
def claimed(folder: pathlib.Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """A folder that is a sampling's own, and no other process's, while the block runs.

    Args:
      folder: made if absent; where it holds fewer images of the same draw, they stay.
      settings: what its images are of, fit for JSON; `count` is their number.

    Raises:
      ValueError: it holds something else or more images, or another process writes into it.
      OSError: it cannot be read or written.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; expected a folder: {_REMEDY}.")
    _require_own(folder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, _REMEDY):
        # Once more, since another process may have been here before it was held.
        if _require_own(folder, settings) != settings:
            # Before the new count, which would take them for those of all images.
            for name in (ARCHIVE, GRID):
                (folder / name).unlink(missing_ok=True)
            write_atomically(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")
        (folder / IMAGES).mkdir(exist_ok=True)
        yield


def missing(folder: pathlib.Path, count: int) -> set[int]:
    """The numbers of the images that are not there.

    Args:
      folder: claimed.
      count: of all.

    Returns:
      Numbers from 0.

    Raises:
      ValueError: there is a file that is none of these images.
    """
    numbers = {image_file(number): number for number in range(count)}
    there = {name for name in os.listdir(folder / IMAGES) if name[0] != "."}
    for name in sorted(there - numbers.keys()):
        raise ValueError(
            f"{folder / IMAGES} holds {name!r}, which is no image of this sampling; move it away, "
            f"or {_REMEDY}."
        )
    return {number for name, number in numbers.items() if name not in there}


def image_file(number: int) -> str:
    """The name of an image's file."""
    return f"{number:0{_DIGITS}d}.png"


def write_images(
    folder: pathlib.Path, numbers: Iterable[int], images: Iterable[tuple[int, np.ndarray]]
) -> Iterator[str]:
    """Writes images, each whole or not at all, while the next are drawn.

    Args:
      folder: claimed.
      numbers: of the images.
      images: number and u8[H, W, 3] of each.

    Yields:
      The name of each file that is on the disk.

    Raises:
      OSError: one cannot be written.
    """

    def refuse(name, reason):
        raise OSError(f"{folder / IMAGES / name} {reason}.")

    paths = png_paths([image_file(number) for number in numbers])
    items = (Item(image_file(number), image, "") for number, image in images)
    yield from write_pngs(folder / IMAGES, paths, items, refuse, Stages(usable_cores()))


def finish(folder: pathlib.Path, count: int, labels: np.ndarray | None, classes: int) -> None:
    """Writes the archive and the grid out of the files of all images.

    Args:
      folder: claimed, with every image.
      count: of images.
      labels: i64[N]; None without classes.
      classes: how many of them take turns; each has a column of the grid where they are few.

    Raises:
      OSError: a file cannot be written.
      ValueError: an image cannot be read back.
    """
    side = _read(folder, 0).shape
    arrays = {"arr_0": Rows((count, *side), np.uint8, _read_all(folder, count))}
    if labels is not None:
        arrays["arr_1"] = Rows((count,), np.int64, [labels.astype(np.int64)])
    columns = classes if 1 < classes <= _MOST_COLUMNS else _GRID_COLUMNS
    first = [_read(folder, number) for number in range(min(count, columns * _GRID_ROWS))]
    with replacing(folder / GRID) as temporary:
        Image.fromarray(_tiled(first, columns)).save(temporary, format="png")
    write_archive(folder / ARCHIVE, arrays)


def is_finished(folder: pathlib.Path) -> bool:
    """Whether the archive and the grid are there."""
    return (folder / ARCHIVE).is_file() and (folder / GRID).is_file()


def _require_own(folder, settings) -> Mapping[str, Any] | None:
    """What a folder is of, these settings or fewer images of them; None where it is empty."""
    path = folder / SETTINGS
    try:
        found = read_json(path, Each(ANY))
    except FileNotFoundError:
        if folder.is_dir() and any(own.name[0] != "." for own in folder.iterdir()):
            raise ValueError(
                f"{folder} is not empty and has no {SETTINGS}, which would say what it holds; "
                f"{_REMEDY}."
            ) from None
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {_REMEDY}.") from error
    differing = [
        f"{name if name in settings else shown(name)} is {shown(found.get(name))} there, "
        f"{shown(settings.get(name))} now"
        for name in sorted({**settings, **found})
        if found.get(name) != settings.get(name)
        and not (name == "count" and _is_fewer(found.get(name), settings[name]))
    ]
    if differing:
        raise ValueError(
            f"{folder} holds samples of other settings: {'; '.join(differing)}. Give another "
            "--output, or those settings to go on."
        )
    return found


def _is_fewer(there: Any, count: int) -> bool:
    return type(there) is int and 0 < there < count


def _read_all(folder, count) -> Iterator[np.ndarray]:
    """All images, u8[1, H, W, 3] each."""
    threads = usable_cores()
    most = max(16, threads)
    with ThreadPoolExecutor(threads) as pool:
        for image in ahead(pool, lambda number: _read(folder, number), range(count), most):
            yield image[None]


def _read(folder, number) -> np.ndarray:
    path = folder / IMAGES / image_file(number)
    try:
        return read_image(path, USUAL)
    except ValueError as error:
        raise ValueError(f"{path}: {error} Remove it; the same command draws it again.") from error


def _tiled(images, columns) -> np.ndarray:
    """Images of one size row by row, black where there is none."""
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    height, width, _ = images[0].shape
    tiles = np.zeros((rows * columns, height, width, 3), np.uint8)
    tiles[: len(images)] = images
    tiles = tiles.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return tiles.reshape(rows * height, columns * width, 3)
