"""Folders of images to codes and back: reading, coding and writing at the same time."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from mq_jax.data.folder import list_folder
from mq_jax.images.decode import Reading, read_image
from mq_jax.images.transforms import apply_transform
from mq_jax.tokenizers.items import Item, ahead_within, beside, unawaited
from mq_jax.tokenizers.shards import Tokens
from mq_jax.tokenizers.stages import Stages
from mq_jax.tokenizers.tokenizer import Tokenizer

# Pixels of a batch, of images that wait for others of their shape, and of those read ahead: a few
# hundred bytes each while they are coded.
BATCH_PIXELS = 2**21
HELD_PIXELS = 2**24
AHEAD_PIXELS = 2**22

# Shapes that get a program of their own before canvases are used.
_OWN_PROGRAMS = 4

# Images that canvases are coded by.
_CANVAS_BATCH = 8


def list_images(path: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """The images of a folder, at any depth, or one image file.

    Args:
      path: of the folder or the file.

    Returns:
      The folder, and the names in it, sorted.

    Raises:
      FileNotFoundError: there is no such path.
      ValueError: the folder has no image.
    """
    if path.is_file():
        return path.parent, [path.name]
    if path.exists() and not path.is_dir():
        raise ValueError(f"The input {path} is no regular file; expected a folder or a file.")
    if not path.is_dir():
        raise FileNotFoundError(f"The input {path} does not exist; expected a folder or a file.")
    return path, list(list_folder(str(path), "all").paths)


def read_images(
    root: pathlib.Path,
    names: Iterable[str],
    transform: Callable[[np.ndarray], np.ndarray] | None,
    reading: Reading,
    count: int,
    stages: Stages,
) -> Iterator[Item]:
    """Reads images in the order of their names, some ahead of who takes them.

    Args:
      root: of the names.
      names: relative paths.
      transform: of u8[H, W, 3]; None keeps images as they are.
      reading: how files are read.
      count: images that wait for who takes them, at most; fewer where they are large.
      stages: whose threads read.

    Yields:
      An Item for each name.
    """

    def read(name):
        try:
            image = read_image(root / name, reading)
            image = image if transform is None else apply_transform(transform, image)
            return Item(name, image, "")
        except ValueError as error:
            return Item(name, None, " ".join(str(error).split()))

    read = stages.timed("reading", read, stages.threads)
    # Besides those that wait, each thread has one under way.
    count += stages.threads
    with unawaited(stages.threads) as pool:
        items = ahead_within(pool, read, names, count, size=_pixels, most=AHEAD_PIXELS)
        with contextlib.closing(items):
            yield from stages.awaited(items)


def encode_images(
    tokenizer: Tokenizer,
    items: Iterable[Item],
    batch_size: int,
    on_bad: Callable[[str, str], Any],
    stages: Stages,
) -> Iterator[Tokens]:
    """Encodes images in batches.

    The first few shapes have programs of their own; images of further ones lie on canvases of a
    few sizes, with the codes that each has alone.

    Args:
      tokenizer: encodes.
      items: from read_images.
      batch_size: images encoded at once, at most; fewer where they are large.
      on_bad: told the name and the reason of each item without an image.
      stages: told what the network takes.

    Yields:
      Tokens of at most batch_size images of one shape of codes.
    """
    canvas_of = _canvases(tokenizer.downsampling, own=_OWN_PROGRAMS)

    def laid_out():
        for batch in _by_shape(items, batch_size, on_bad, canvas_of):
            images = [tokenizer.padded(item.image) for item in batch]
            shapes = np.array([image.shape[:2] for image in images], np.int32)
            yield batch, shapes, _on_canvas(images, shapes, canvas_of(batch[0].image.shape))

    def coded(laid):
        batch, shapes, images = laid
        return batch, shapes, _codes(tokenizer, images, shapes)

    for batch, shapes, codes in beside(stages.timed("network", coded), laid_out()):
        by_shape: dict[tuple, list[int]] = {}
        for row, shape in enumerate(shapes.tolist()):
            by_shape.setdefault(tuple(shape), []).append(row)
        for shape, rows in by_shape.items():
            height, width = (side // tokenizer.downsampling for side in shape)
            sizes = np.array([batch[row].image.shape[:2] for row in rows], np.int32)
            yield Tokens([batch[row].name for row in rows], codes[rows, :height, :width], sizes)


def decode_tokens(
    tokenizer: Tokenizer,
    shards: Iterable[Tokens],
    wanted: set[str],
    batch_size: int,
    stages: Stages,
) -> Iterator[Item]:
    """Decodes codes in batches, padding cropped away.

    Args:
      tokenizer: decodes.
      shards: from tokens.read_tokens.
      wanted: names of the images to decode.
      batch_size: images decoded at once, at most; fewer where they are large.
      stages: told what reading shards and the network take.

    Yields:
      Items, in the order of the shards.
    """

    read, shards = stages.timed("reading", next), iter(shards)

    def batches():
        for shard in stages.awaited(iter(lambda: read(shards, None), None)):
            rows = [row for row, name in enumerate(shard.names) if name in wanted]
            pixels = tokenizer.downsampling**2 * int(np.prod(shard.indices.shape[1:3]))
            count = min(batch_size, max(BATCH_PIXELS // pixels, 1))
            for start in range(0, len(rows), count):
                yield shard, rows[start : start + count]

    def decoded(batch):
        shard, rows = batch
        return shard, rows, tokenizer.decode(shard.indices[rows])

    for shard, rows, images in beside(stages.timed("network", decoded), batches()):
        for row, image in zip(rows, images, strict=True):
            height, width = shard.sizes[row]
            yield Item(shard.names[row], image[:height, :width], "")


def reconstruct_images(
    tokenizer: Tokenizer,
    items: Iterable[Item],
    batch_size: int,
    on_bad: Callable[[str, str], Any],
    stages: Stages,
) -> Iterator[Item]:
    """Encodes and decodes images in batches of one shape of codes.

    Args:
      tokenizer: encodes and decodes.
      items: from read_images.
      batch_size: images coded at once, at most; fewer where they are large.
      on_bad: told the name and the reason of each item without an image.
      stages: told what the network takes.

    Yields:
      Items with reconstructions.
    """

    exact = _canvases(tokenizer.downsampling, own=None)

    def stacked():
        for batch in _by_shape(items, batch_size, on_bad, exact):
            yield batch, np.stack([tokenizer.padded(item.image) for item in batch])

    def reconstructed(pair):
        batch, images = pair
        return batch, tokenizer.reconstruct(images)

    for batch, images in beside(stages.timed("network", reconstructed), stacked()):
        for item, image in zip(batch, images, strict=True):
            height, width, _ = item.image.shape
            yield item._replace(image=image[:height, :width])


def _canvases(multiple, own) -> Callable[[tuple[int, ...]], tuple[int, int]]:
    """Makes the function from an image's shape to the sides of the canvas that it is coded on.

    The multiple's next, for the first `own` of these; then also rounded up by at most a half.
    `own` None: for all.
    """
    exact = set()

    def canvas(shape):
        codes = tuple(-(-side // multiple) for side in shape[:2])
        if own is None or codes in exact or len(exact) < own:
            exact.add(codes)
        else:
            steps = [1 << max(count.bit_length() - 2, 0) for count in codes]
            codes = tuple(
                -(-count // step) * step for count, step in zip(codes, steps, strict=True)
            )
        return tuple(multiple * count for count in codes)

    return canvas


def _on_canvas(images, shapes, canvas) -> np.ndarray:
    """Padded images on one canvas each, u8[B, H, W, 3]."""
    if (shapes == canvas).all():
        return np.stack(images)
    whole = np.zeros((len(images), *canvas, 3), np.uint8)
    for place, image in zip(whole, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return whole


def _codes(tokenizer, images, shapes) -> np.ndarray:
    """The codes of images on one canvas, with a mask only where one needs it."""
    canvas = images.shape[1:3]
    if (shapes == canvas).all():
        return tokenizer.encode(images)
    # Of one size, the last one too: a compilation takes longer than some blank images.
    count = min(_CANVAS_BATCH, max(BATCH_PIXELS // int(np.prod(canvas)), 1))
    blank = -len(images) % count
    whole = np.pad(images, [(0, blank), (0, 0), (0, 0), (0, 0)])
    sizes = np.resize(shapes, (len(whole), 2))
    parts = [slice(start, start + count) for start in range(0, len(whole), count)]
    return np.concatenate([tokenizer.encode_within(whole[part], sizes[part]) for part in parts])


def _by_shape(items, batch_size, on_bad, canvas_of=lambda shape: shape[:2]) -> Iterator[list[Item]]:
    """Batches of images on one canvas, of a bounded number of pixels; few are held back."""
    groups: dict[tuple, list[Item]] = {}
    held = 0
    for item in items:
        if item.image is None:
            on_bad(item.name, item.reason)
            continue
        height, width = canvas_of(item.image.shape)
        group = groups.setdefault((height, width), [])
        group.append(item)
        held += height * width
        if len(group) >= min(batch_size, max(BATCH_PIXELS // (height * width), 1)):
            held -= height * width * len(group)
            yield groups.pop((height, width))
        elif held > HELD_PIXELS:
            largest = max(groups, key=lambda shape: shape[0] * shape[1] * len(groups[shape]))
            held -= largest[0] * largest[1] * len(groups[largest])
            yield groups.pop(largest)
    yield from groups.values()


def _pixels(item: Item) -> int:
    """What an image takes while it waits."""
    return 0 if item.image is None else item.image.shape[0] * item.image.shape[1]
