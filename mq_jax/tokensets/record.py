"""One record of a token set: the codes of all stored views of an image, with its label."""

from typing import NamedTuple

import numpy as np


class Item(NamedTuple):
    """An image of a token set.

    Attributes:
      tokens: i32[V, h, w] in [0, K), or i32[V, h, w, J]; where a view was chosen, without V.
      label: its class, -1 without one.
      index: the record's number in the data set that was encoded.
    """

    tokens: np.ndarray
    label: int
    index: int


class Layout(NamedTuple):
    """How the bytes of a record lie, little-endian: index i64, label i32, codes.

    Attributes:
      views: V.
      shape: (h, w), or (h, w, J).
      dtype: of the codes, the smallest unsigned type that holds K - 1.
    """

    views: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def _structure(self) -> np.dtype:
        codes = np.dtype(self.dtype).newbyteorder("<"), (self.views, *self.shape)
        return np.dtype([("index", "<i8"), ("label", "<i4"), ("codes", *codes)])

    def packed(self, index: int, label: int, codes: np.ndarray) -> bytes:
        """The bytes of a record.

        Args:
          index: of the image in its data set.
          label: of the image.
          codes: i[V, h, w] or i[V, h, w, J].

        Returns:
          As many bytes for every image.
        """
        record = np.zeros((), self._structure)
        record["index"], record["label"], record["codes"] = index, label, codes
        return record.tobytes()

    def unpacked(self, data: bytes) -> Item:
        """What a record holds, every view of it.

        Args:
          data: from packed.

        Returns:
          An Item.

        Raises:
          ValueError: the bytes are too few or too many.
        """
        structure = self._structure
        if len(data) != structure.itemsize:
            raise ValueError(f"it has {len(data)} bytes; expected {structure.itemsize}")
        record = np.frombuffer(data, structure)[0]
        codes = record["codes"].astype(np.int32)
        return Item(codes, int(record["label"]), int(record["index"]))
