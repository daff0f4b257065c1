"""The shards of a token set, made one at a time and in any order.

A shard depends on the tokenizer, the data and its own number alone. So whoever makes it, once more
or on another machine of the same kind, writes the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter

from mq_jax.containers.parquet import Columns
from mq_jax.data.pipeline import read_options
from mq_jax.data.sources import open_source
from mq_jax.data.splits import HOLDOUTS
from mq_jax.images.decode import USUAL, Reading
from mq_jax.images.transforms import apply_transform
from mq_jax.storage.files import replacing
from mq_jax.tokenizers.tokenizer import load_tokenizer
from mq_jax.tokensets.encoding import BATCH, Encoder
from mq_jax.tokensets.manifest import (
    VERSION,
    require_readable,
    shard_file,
    whole_shard,
    write_note,
)
from mq_jax.tokensets.record import Layout
from mq_jax.tokensets.views import make_views

# A killed process loses the shard it was at; a reader opens a file for each.
_SHARD_IMAGES, _SMALL_SHARD_IMAGES = 4096, 256
# So many processes find work in a small set, too.
_SHARDS_OF_SMALL_SETS = 16

# A record for itself is what random access wants; codes hardly compress, and not every version of
# a compressor would write the same bytes.
_WRITER_OPTIONS = "group_size:1,uncompressed"


class Spec(NamedTuple):
    """What a token set is made of; small, and picklable.

    Attributes:
      tokenizer: an export, or the folder of a run that has one.
      source: "tfds:NAME", "folder" or another, as data.open_source takes it.
      directory: of the data, likewise.
      split: of the data, likewise.
      holdout: likewise.
      views: as views.make_views takes them.
      image_column: of the data, likewise.
      label_column: likewise.
      shards: their number; 0: by the number of images.
      max_pixels: of an image; larger ones count as unreadable.
      max_bytes: of an image file, likewise; 0: any.
      max_bad_share: of images that are unreadable and left out, in [0, 1]; more end the making.
      threads: that read images.
    """

    tokenizer: str
    source: str
    directory: str
    split: str
    holdout: str = HOLDOUTS[0]
    views: str = "center"
    image_column: str = ""
    label_column: str = ""
    shards: int = 0
    max_pixels: int = USUAL.max_pixels
    max_bytes: int = USUAL.max_bytes
    max_bad_share: float = 0.01
    threads: int = 1


class ShardMaker:
    """Makes the shards of one token set, in any order.

    Args:
      spec: of the set.
      folder: of the set.

    Attributes:
      claim: what the tokens are of, as the manifest has it.
      contents: of the data.
      shards: how many there are.
      most_bad: unreadable images that are tolerated.

    Raises:
      FileNotFoundError: the tokenizer or the data is not there.
      ValueError: either is damaged, or the views or the number of shards are impossible.
    """

    def __init__(self, spec: Spec, folder: str | os.PathLike):
        self.spec, self.folder = spec, pathlib.Path(folder)
        self._tokenizer = tokenizer = load_tokenizer(spec.tokenizer)
        preparation = dict(tokenizer.preparation)
        # Exports of before it left colours as they are.
        icc = preparation.pop("icc", False)
        names, self._views = make_views(spec.views, preparation)
        self._source = open_source(
            spec.source,
            directory=spec.directory,
            split=spec.split,
            holdout=spec.holdout,
            columns=Columns(spec.image_column, spec.label_column),
            reading=Reading(icc, spec.max_pixels, spec.max_bytes),
        )
        records = len(self._source)
        self.contents = self._source.contents()
        self.shards = spec.shards or shard_count(records)
        if not 1 <= self.shards <= min(records, 99_999):
            raise ValueError(
                f"--shards is {spec.shards}; expected at most one for each of the {records} images."
            )
        self.most_bad = int(spec.max_bad_share * records)
        side, own = preparation["image_size"], (tokenizer.depth,) if tokenizer.depth else ()
        dtype = np.min_scalar_type(tokenizer.size - 1).name
        self._layout = Layout(len(names), (*tokenizer.grid(side, side), *own), dtype)
        self.claim = self._claimed(names)

    def records(self, shard: int) -> int:
        """How many images of the data a shard is of, readable or not."""
        first, last = self._bounds(shard)
        return last - first

    def found(self, shard: int) -> dict[str, Any] | None:
        """What is known of a shard that is there as it was written, as manifest.whole_shard."""
        return whole_shard(self.folder, shard_file(shard, self.shards))

    def make(self, shard: int, progress: Callable[[int], Any] | None = None) -> int:
        """Makes a shard, whether or not it is there.

        Args:
          shard: its number, from 0.
          progress: told the number of further images that are done.

        Returns:
          How many images it has.

        Raises:
          ValueError: too many images are unreadable.
          OSError: it cannot be written.
        """
        file = shard_file(shard, self.shards)
        path, bad, images = self.folder / file, [], 0
        with replacing(path) as temporary:
            with _writer(temporary) as write:
                for record in self._records(shard, bad, progress):
                    write(record)
                    images += 1
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
                sha256 = hashlib.file_digest(written, "sha256").hexdigest()
            size = temporary.stat().st_size
        note = {"file": file, "images": images, "bytes": size, "sha256": sha256, "bad": bad}
        write_note(self.folder, note)
        return images

    def _claimed(self, names) -> dict[str, Any]:
        """What the tokens are of, fit for JSON."""
        facts, tokenizer = self.contents.facts, self._tokenizer
        return {
            "version": VERSION,
            "tokenizer": tokenizer.fingerprint,
            "codebook_size": tokenizer.size,
            "depth": tokenizer.depth,
            "downsampling": tokenizer.downsampling,
            "shape": self._layout.shape,
            "dtype": self._layout.dtype,
            "views": names,
            "preparation": tokenizer.preparation,
            "batch": BATCH,
            "data": {
                "source": self.spec.source,
                "split": self.spec.split,
                **{name: facts[name] for name in ("origin", "rule", "sha256")},
            },
            "records": facts["images"],
            "class_names": self._source.class_names,
            "shard_count": self.shards,
        }

    @functools.cached_property
    def _encoder(self) -> Encoder:
        """Of this process's devices; compiles with the first shard alone."""
        return Encoder(self._tokenizer)

    def _records(self, shard, bad, progress) -> Iterator[bytes]:
        """The records of a shard, in order; `bad` takes the images that cannot be read."""
        read = []

        def images():
            for index, label, views, reason in self._rows(*self._bounds(shard)):
                if progress is not None:
                    progress(1)
                if views is None:
                    self._leave_out(index, reason, bad)
                else:
                    read.append((index, label))
                    yield views

        for number, codes in enumerate(self._encoder.codes(images())):
            yield self._layout.packed(*read[number], codes)

    def _bounds(self, shard):
        """Numbers of a shard's first image, and of that after its last."""
        return [len(self._source) * i // self.shards for i in (shard, shard + 1)]

    def _rows(self, first, last):
        """(index, label, views u8[V, S, S, 3] or None, why not) of each image, read ahead."""

        def row(index):
            try:
                record = self._source[index]
                views = apply_transform(self._views, record.image)
                return index, record.label, views, ""
            except ValueError as error:
                return index, -1, None, str(error)

        ahead = max(2, 2 * self._encoder.rows // self._layout.views)
        rows = grain.MapDataset.range(first, last).map(row)
        return iter(rows.to_iter_dataset(read_options(self.spec.threads, ahead)))

    def _leave_out(self, index, reason, bad):
        """Notes an image that cannot be read."""
        logging.warning("Unreadable image, left out: %s: %s", self._source.name(index), reason)
        names = self.contents.names if self.contents.per_image else ()
        bad.append({"index": int(index), "name": names[index] if names else f"#{index}"})
        if len(bad) > self.most_bad:
            own = [image["name"] for image in bad]
            require_readable(len(bad), own, len(self._source), self.most_bad)


@contextlib.contextmanager
def _writer(path: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
    """What writes a record into a new file; ArrayRecord says RuntimeError where it cannot."""
    writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)

    def told(function, *arguments):
        try:
            function(*arguments)
        except RuntimeError as error:
            raise OSError(f"{path.parent} cannot be written: {error}") from error

    try:
        yield functools.partial(told, writer.write)
    except BaseException:
        # Its own failure hides none.
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    told(writer.close)


def shard_count(records: int) -> int:
    """How many shards a set has unless it is said, whoever makes it.

    Args:
      records: images of the data set.

    Returns:
      At least one for 4,096 images, and of small sets 16, of 256 or more.
    """
    few = min(_SHARDS_OF_SMALL_SETS, math.ceil(records / _SMALL_SHARD_IMAGES))
    return max(math.ceil(records / _SHARD_IMAGES), few)
