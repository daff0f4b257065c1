"""The shards of a token set as an Apache Beam transform, for whichever engine runs it.

A shard is an element, made by the function that makes it without Beam, and written whole or not at
all. So a bundle that fails may be given to another worker, and a pipeline started again: shards
that are whole are kept. Asks for `pip install "mq_jax[beam]"`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from mq_jax.storage.lock import held
from mq_jax.tokensets.making import Made
from mq_jax.tokensets.manifest import begin, finish, require_claim
from mq_jax.tokensets.shards import ShardMaker, Spec


class MakeShards(beam.PTransform):
    """Makes the shards of a claimed token set; its output are (images encoded, images kept).

    Args:
      spec: of the set; workers find tokenizer and data under the same paths.
      folder: of the set, which all workers see under one path.
      shards: how many there are.
    """

    def __init__(self, spec: Spec, folder: str | os.PathLike, shards: int):
        super().__init__()
        self._spec, self._folder, self._shards = spec, os.fspath(folder), shards

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """The transform, at the beginning of a pipeline."""
        return (
            pipeline
            | "Shards" >> beam.Create(range(self._shards))
            # Else a runner may fuse them all into one bundle, for one worker.
            | "Spread" >> beam.Reshuffle()
            | "Make" >> beam.ParDo(MakeShard(self._spec, self._folder))
        )


class MakeShard(beam.DoFn):
    """Makes one shard; the tokenizer is loaded and compiled once in each process of a worker.

    Args:
      spec: of the set.
      folder: of the set, claimed.
    """

    def __init__(self, spec: Spec, folder: str):
        self._spec, self._folder, self._shared = spec, folder, Shared()

    def setup(self) -> None:
        """Loads what all shards need, and checks that it is what the set is of."""
        self._maker = self._shared.acquire(lambda: ShardMaker(self._spec, self._folder))
        require_claim(self._maker.folder, self._maker.claim)

    def process(self, shard: int) -> Iterator[tuple[int, int]]:
        """Makes a shard, unless it is there.

        Args:
          shard: its number.

        Yields:
          How many images were encoded, and how many were there already.
        """
        there = self._maker.found(shard)
        yield (0, there["images"]) if there else (self._maker.make(shard), 0)


def make_token_set_on_beam(
    spec: Spec,
    folder: str | os.PathLike,
    options: PipelineOptions | Sequence[str] | Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Made:
    """Makes a token set, or what is missing of it, on an engine that Beam knows; waits for its end.

    Args:
      spec: of the set; workers find tokenizer and data under the same paths.
      folder: of the set, made if absent, which all workers see under one path.
      options: of the pipeline, such as ["--runner=FlinkRunner", "--flink_master=HOST:PORT"].
      overwrite: whether a token set of something else may be replaced.

    Returns:
      A Made; its manifest and shards are those of make_token_set, bit for bit on like machines.

    Raises:
      FileNotFoundError: the tokenizer or the data is not there.
      ValueError: something does not fit, or too many images are unreadable.
      OSError: the folder cannot be written.
      Exception: whatever the engine raises where workers failed for good.
    """
    folder = pathlib.Path(folder).absolute()
    maker = ShardMaker(spec, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, "give another --output"):
        begin(folder, maker.claim, overwrite=overwrite)
        there = [found["images"] for i in range(maker.shards) if (found := maker.found(i))]
        if isinstance(options, Mapping):
            options = PipelineOptions.from_dictionary(dict(options))
        elif not isinstance(options, PipelineOptions):
            options = PipelineOptions(list(options))
        logging.info("Beam: %d shards, of which %d are there", maker.shards, len(there))
        with beam.Pipeline(options=options) as pipeline:
            pipeline | "Token set" >> MakeShards(spec, folder, maker.shards)
        manifest = finish(folder, maker.most_bad)
    return Made(manifest, manifest["images"] - sum(there), sum(there))
