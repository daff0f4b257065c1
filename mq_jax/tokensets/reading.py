"""Reading a token set: any image by its number, every byte checked against what it declares."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from array_record.python.array_record_data_source import ArrayRecordDataSource

from mq_jax.storage.files import open_bounded
from mq_jax.tokensets.manifest import MOST_SHARD_BYTES, read_manifest
from mq_jax.tokensets.record import Item, Layout


class _Instruction(NamedTuple):
    """A shard as ArrayRecord's source takes it; it then opens no file before a record is read."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def open_tokens(path: str | os.PathLike) -> TokenSet:
    """Opens a token set.

    Args:
      path: its folder.

    Returns:
      A TokenSet.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not whole, or damaged.
    """
    return TokenSet(path)


class TokenSet:
    """The images of a token set, in random access; picklable, and small when pickled.

    Attributes:
      size: K, values of a code.
      depth: J, codes of a position; 0 where they have no axis of their own.
      shape: (h, w) or (h, w, J), of an image's codes.
      views: names of the stored views.
      classes: how many there are; 0 without labels.
      class_names: theirs.
      downsampling: pixels to a code, along one side.
      tokenizer: fingerprint of the one that made the codes, which alone decodes them.
      preparation: how images were made, as Tokenizer.preparation.
      split: source and split of the data that was encoded.
      digest: sha256 of all that the set holds; what a position in its batches is a position of.

    Args:
      path: of the folder.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not whole, or damaged.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = pathlib.Path(path)
        manifest = read_manifest(self._path)
        if not manifest["complete"]:
            raise ValueError(f"{path} is not whole; the command that makes it goes on with it.")
        for shard in manifest["shards"]:
            _require_size(self._path / shard["file"], shard["bytes"])
        self.size, self.depth = manifest["codebook_size"], manifest["depth"]
        self.shape, self.views = tuple(manifest["shape"]), tuple(manifest["views"])
        self.class_names = tuple(manifest["class_names"])
        self.classes = len(self.class_names)
        self.downsampling, self.tokenizer = manifest["downsampling"], manifest["tokenizer"]
        self.preparation = manifest["preparation"]
        self.split = manifest["data"]["source"], manifest["data"]["split"]
        told = json.dumps(manifest, sort_keys=True).encode()
        self.digest = hashlib.sha256(told).hexdigest()
        self._layout = Layout(len(self.views), self.shape, manifest["dtype"])
        self._records = ArrayRecordDataSource(
            [
                _Instruction(str(self._path.absolute() / s["file"]), 0, s["images"], s["images"])
                for s in manifest["shards"]
            ]
        )

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return (
            f"TokenSet({len(self)} images of {' '.join(self.split)}, {len(self.views)} view(s) of "
            f"{' x '.join(map(str, self.shape))} codes, K={self.size}, classes={self.classes})"
        )

    def __getitem__(self, index: int) -> Item:
        """All stored views of an image.

        Args:
          index: of the image, from 0.

        Returns:
          An Item, tokens i32[V, h, w] or i32[V, h, w, J].

        Raises:
          IndexError: there is no such image.
          ValueError: its record is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        try:
            # It raises RuntimeError for what its checksums do not fit.
            item = self._layout.unpacked(self._records[index])
            self._check(item)
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(
                f"Image {index} of {self._path} is damaged ({' '.join(str(error).split())}); copy "
                "the set again; the command that makes it mends it, too."
            ) from error
        return item

    def view(self, index: int, number: int) -> Item:
        """One view of an image.

        Args:
          index: of the image, from 0.
          number: of the view, from 0.

        Returns:
          An Item, tokens i32[h, w] or i32[h, w, J].

        Raises:
          IndexError: there is no such image or view.
          ValueError: its record is damaged.
        """
        item = self[index]
        if not 0 <= number < len(self.views):
            raise IndexError(f"view {number} of {len(self.views)}")
        return item._replace(tokens=item.tokens[number])

    def number(self, view: str) -> int:
        """The number of a view.

        Args:
          view: one of `views`.

        Returns:
          Its place among them.

        Raises:
          ValueError: there is no such view.
        """
        return _place(self.views, view, self._path)

    def _check(self, item: Item) -> None:
        """Raises for what a model would take for an index past its tables."""
        if not (0 <= item.tokens.min() and item.tokens.max() < self.size):
            raise ValueError(f"a code is {item.tokens.max()}; expected [0, {self.size - 1}]")
        if not -1 <= item.label < max(self.classes, 0):
            raise ValueError(f"its label is {item.label} of {self.classes} classes")


def _require_size(path: pathlib.Path, size: int) -> None:
    """Raises unless a shard is a regular file of its size; checksums inside it tell the rest."""
    try:
        with open_bounded(path, MOST_SHARD_BYTES) as file:
            found = os.fstat(file.fileno()).st_size
        if found != size:
            raise ValueError(f"it has {found:,} bytes; the manifest says {size:,}")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The shard {path} is missing or damaged ({error}); copy it again, or give the command "
            "that made the set, which makes it anew."
        ) from error


def _place(names: Sequence[str], name: str, path: pathlib.Path) -> int:
    if name not in names:
        raise ValueError(f"{path} has no view {name!r}; expected one of {', '.join(names)}.")
    return names.index(name)
