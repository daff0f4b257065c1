"""Images to PNG files under the names of those that they are made of."""

from __future__ import annotations

import collections
import errno
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from mq_jax.storage.files import replacing
from mq_jax.tokenizers.items import Item, ahead
from mq_jax.tokenizers.stages import Stages

# Images that wait for the disk, at most, unless there are more threads.
_WAITING = 16

# What fails for one file fails for the next one too.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}


def write_pngs(
    folder: pathlib.Path,
    paths: dict[str, str],
    items: Iterable[Item],
    on_bad: Callable[[str, str], Any],
    stages: Stages,
) -> Iterator[str]:
    """Writes images as PNG files, each whole or not at all, while the next are computed.

    Args:
      folder: of the output; exists.
      paths: from png_paths.
      items: with images.
      on_bad: told the name and the reason of each image whose own file cannot be written.
      stages: whose threads write.

    Yields:
      The name of each image that is on the disk.

    Raises:
      OSError: no file can be written: the disk is full, say.
    """

    def write(item):
        path = folder / paths[item.name]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # OpenCV's order of channels; it compresses ten times as fast as Pillow.
            _, encoded = cv2.imencode(".png", np.ascontiguousarray(item.image[..., ::-1]))
            with replacing(path) as temporary:
                temporary.write_bytes(encoded.tobytes())
        # A name of another hand may hold what no file's name can.
        except (OSError, ValueError, cv2.error) as error:
            if getattr(error, "errno", None) in _OF_THE_DISK:
                raise
            return item.name, f"cannot be written: {' '.join(str(error).split())}"
        return item.name, ""

    write = stages.timed("writing", write, stages.threads)
    with ThreadPoolExecutor(stages.threads) as pool:
        for name, reason in ahead(pool, write, items, max(_WAITING, stages.threads)):
            if reason:
                on_bad(name, reason)
            else:
                yield name


def png_paths(names: Sequence[str]) -> dict[str, str]:
    """The PNG file of each image: its name with another suffix.

    Names that would share a file, `a.jpg` and `a.png`, or `a.jpg` and `A.JPG` where the file
    system folds case, keep their whole name, `a.jpg.png`, with a number where even that is taken.

    Args:
      names: relative paths with "/".

    Returns:
      name -> relative path; no two are equal in any case, and none is another one's folder.

    Raises:
      ValueError: a name leads out of the folder.
    """
    shorts, taken = {}, set()
    for name in names:
        pure = pathlib.PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.name:
            raise ValueError(f"The name {name!r} leads out of the output folder; expected a/b.jpg.")
        shorts[name] = str(pure.with_suffix(".png"))
        taken |= {str(parent).casefold() for parent in pure.parents}
    counts = collections.Counter(short.casefold() for short in shorts.values())
    # Whoever has a short name to itself keeps it, whatever the others are called.
    free = {n for n, s in shorts.items() if counts[s.casefold()] == 1} - {
        n for n, s in shorts.items() if s.casefold() in taken
    }
    paths = {name: shorts[name] for name in free}
    taken |= {path.casefold() for path in paths.values()}
    for name in (name for name in names if name not in free):
        path, number = f"{name}.png", 2
        while path.casefold() in taken:
            path, number = f"{name}.{number}.png", number + 1
        taken.add(path.casefold())
        paths[name] = path
    return {name: paths[name] for name in names}
