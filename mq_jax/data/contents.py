"""What a split held when it was opened, to be compared later: count, digest, names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_SHOWN = 8


class Contents(NamedTuple):
    """The listing of a split, the same wherever the data lies.

    Attributes:
      origin: what was opened: "folder", "photos", or the name and version of a prepared set.
      rule: what put the images into the split.
      images: how many there are.
      names: of the images, or of the files that hold them, in order; empty for the photos.
      per_image: whether there is a name for each image.
      aside: how many files of a folder are no images, by ending.
    """

    origin: str
    rule: str
    images: int
    names: Sequence[str] = ()
    per_image: bool = False
    aside: Mapping[str, int] = {}

    @property
    def digest(self) -> str:
        """The sha256 of the names and the count."""
        digest = hashlib.sha256(f"{self.images}\n".encode())
        for name in self.names:
            # No name of a file holds this byte.
            digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """All but the names, fit for JSON."""
        return {
            "origin": self.origin,
            "rule": self.rule,
            "images": self.images,
            "sha256": self.digest,
        }

    def of(self, indices: Sequence[int]) -> Contents:
        """The contents of some of the images."""
        names = [self.names[index] for index in indices] if self.per_image else self.names
        return self._replace(images=len(indices), names=names)


def evaluated_images(source: str, split: str, images: int, side: int) -> str:
    """What an evaluation is of, in a phrase without any path.

    Args:
      source: as config.data.source.
      split: of it.
      images: how many there are.
      side: of each, pixels.

    Returns:
      A phrase.
    """
    return f"{source} {split}, {images:,} images at {side} pixels"


def sentence(contents: Mapping[str, Contents]) -> str:
    """How many images each split has, by which rule, and what was left aside.

    Args:
      contents: by what the split is for, such as "train".

    Returns:
      One line.
    """
    told = [f"{use} {found.images:,} ({found.rule})" for use, found in contents.items()]
    aside = {ending: n for found in contents.values() for ending, n in found.aside.items()}
    counts = ", ".join(f"{count} {ending}" for ending, count in list(aside.items())[:_SHOWN])
    if len(aside) > _SHOWN:
        counts += f", {sum(list(aside.values())[_SHOWN:])} of {len(aside) - _SHOWN} other endings"
    return f"Images: {', '.join(told)}{f'; left aside: {counts}' if counts else ''}"
