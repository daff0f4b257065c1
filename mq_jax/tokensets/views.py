"""The views of an image that a token set stores: its evaluation view, crops beside it, mirrors.

A ten-crop is that of LlamaGen (Sun et al., 2024): at a range R the image is prepared as for
evaluation, but at a side of floor(R * S) pixels, and its four corners and its centre are cropped to
S pixels, as they are and mirrored. LlamaGen stores those of the ranges 1.1 and 1.05.

Random crops are those of the tokenizer's own training, at places that the number of the crop alone
draws: of images much larger than S a ten-crop would see the middle.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mq_jax.images.transforms import make_eval_transform, make_train_transform

# What "ten-crop" alone stands for.
_RANGES = ("1.1", "1.05")
_CHOICE = re.compile(r"center|flip|ten-crop(:(?P<range>\d+(\.\d+)?))?|random:[1-9]\d{0,3}")
_CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right", "center")
# At twice the side the corners leave the middle of each edge out.
_LARGEST_RANGE = 2.0


def make_views(
    choice: str, preparation: Mapping[str, Any]
) -> tuple[tuple[str, ...], Callable[[np.ndarray], np.ndarray]]:
    """The views that a choice names, and the function that makes them.

    Args:
      choice: one or several of `center`, the view of evaluation; `flip`, that mirrored;
        `ten-crop:R`, ten at a range R in (1, 2]; `ten-crop`, those of 1.1 and 1.05; and `random:N`,
        N random crops, each mirrored with probability 0.5. Divided by commas.
      preparation: arguments of images.transforms.make_eval_transform.

    Returns:
      The V names in order, and a function of an image u8[H, W, 3] that returns u8[V, S, S, 3].

    Raises:
      ValueError: a view is unknown, named twice, or a range leaves no room for a crop.
    """
    side = preparation["image_size"]
    makers, names = [], []
    for part in _parts(choice):
        own, maker = _family(part, side, preparation)
        names += own
        makers.append(maker)
    if len(set(names)) < len(names):
        raise ValueError(f"--views={choice} names a view twice; expected each once.")

    def views(image: np.ndarray) -> np.ndarray:
        return np.concatenate([maker(image) for maker in makers])

    return tuple(names), views


def _parts(choice: str) -> list[str]:
    """The families of a choice, a ten-crop for each range."""
    parts: list[str] = []
    for part in choice.split(","):
        match = _CHOICE.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"--views={choice}: {part!r} is no view; expected center, flip, ten-crop (ranges "
                f"{' and '.join(_RANGES)}), ten-crop:RANGE or random:NUMBER, divided by commas."
            )
        plain = match[0] == "ten-crop"
        parts += [f"ten-crop:{each}" for each in _RANGES] if plain else [match[0]]
    return parts


def _family(part: str, side: int, preparation: Mapping[str, Any]):
    """The names of one family, and its function of an image: u8[v, S, S, 3]."""
    if part in ("center", "flip"):
        prepared, mirrored = make_eval_transform(**preparation), part == "flip"
        return [part], lambda image: prepared(image)[None, :, :: -1 if mirrored else 1]
    written = part.partition(":")[2]
    if part.startswith("random:"):
        return _random(int(written), preparation)
    room = int(side * float(written)) - side
    if not 0 < room <= (_LARGEST_RANGE - 1) * side:
        raise ValueError(
            f"ten-crop:{written} of images of {side} pixels crops from {side + room}; expected at "
            f"least {side + 1} and at most {int(_LARGEST_RANGE * side)}."
        )
    prepared = make_eval_transform(**{**preparation, "image_size": side + room})
    corners = [(0, 0), (0, room), (room, 0), (room, room), (room // 2, room // 2)]

    def ten(image: np.ndarray) -> np.ndarray:
        whole = prepared(image)
        # The mirror is cropped, not a crop mirrored: its first crop is its own top-left corner.
        both = whole, whole[:, ::-1]
        return np.stack([w[y : y + side, x : x + side] for w in both for y, x in corners])

    names = [f"ten-crop:{written} {corner}" for corner in _CORNERS]
    return names + [f"{name} of the mirror" for name in names], ten


def _random(count: int, preparation: Mapping[str, Any]):
    """As _family, of so many crops of training."""
    augmented = make_train_transform(**preparation, flip=0.5)

    def crops(image: np.ndarray) -> np.ndarray:
        return np.stack([augmented(image, np.random.default_rng(k)) for k in range(count)])

    return [f"random {k}" for k in range(count)], crops
