"""Archives of images as their authors publish them: what each of them comes down to."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mq_jax.devices.reading import open_regular

# As published; TFDS checks all but the first.
SHA256 = {
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "img_align_celeba.zip": "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
    "list_eval_partition.txt": "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
    "list_attr_celeba.txt": "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
    "list_landmarks_align_celeba.txt": (
        "6c02a87569907f6db2ba99019085697596730e8129f67a3d61659f198c48d43b"
    ),
    "identity_CelebA.txt": "c6143857c3e2630ac2da9f782e9c1232e5e59be993a9d44e8a7916c78a6158c0",
}
ARCHIVES = tuple(SHA256)[:3]


class Example(NamedTuple):
    """An image as TFDS writes it.

    Attributes:
      key: by which TFDS orders it.
      image: the bytes of an image file.
      others: its further features.
    """

    key: int | str
    image: bytes
    others: dict[str, Any]


class Archive(NamedTuple):
    """The content of an official archive.

    Attributes:
      dataset: its name as TFDS has it.
      counts: images of each split.
      annotations: features of each image that are groups of numbers, the names in each group.
      examples: those of a split.
    """

    dataset: str
    counts: Mapping[str, int]
    annotations: Mapping[str, Sequence[str]]
    examples: Callable[[str], Iterator[Example]]


def is_as_published(path: pathlib.Path) -> bool:
    """Whether a file is, byte for byte, one of those that were published.

    Args:
      path: of the file.

    Returns:
      Whether it is.

    Raises:
      OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() in SHA256.values()
