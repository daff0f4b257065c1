"""What the training loop asks of what it trains: all in which the stages differ."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.training.program import Program


class Batches(Protocol):
    """The batches of a run on its devices.

    Attributes:
      listing: digest of the data that record numbers belong to.
      bad_images: record numbers of the unreadable images so far, by level; fit for JSON.
    """

    listing: str
    bad_images: Sequence[Sequence[int]]

    def restore(self, bad_images: Sequence[Sequence[int]], listing: str) -> None:
        """Takes both over from a checkpoint."""

    def batches(self, step: int) -> Iterator[tuple]:
        """What the step of this number and those after it are given; has close()."""

    def count_bad_images(self) -> None:
        """Raises ValueError where too many are unreadable."""


class Seen(NamedTuple):
    """What an evaluation of a state found.

    Attributes:
      scalars: by logged name.
      pictures: u8[H, W, 3] by name.
      keep: (folder of the run) -> writes what a report shows of it, where it is the best; None
        where there is nothing.
    """

    scalars: dict[str, float]
    pictures: dict[str, np.ndarray]
    keep: Callable[[pathlib.Path], None] | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """One kind of training.

    Its state has `step`, `parts`, parameters by part, and `learned`, all that must be finite; its
    window is from metrics.collections.

    Attributes:
      config: of the run; how often things are due and the batch size are read, in section train.
      steps: of the whole run.
      monitor: logged name of the metric, lower is better, that decides which checkpoint is best.
      settled: as standing.rank's.
      loss: logged name of what a step returns.
      mesh: of the run.
      program: compiled, or about to be.
      step_at: number of a step -> (the compiled step that is due, the updates that it takes).
      feed: what steps are given.
      frozen: weights that no step changes, on the devices.
      start: -> the state before the first step.
      evaluate: (state, step) -> Seen.
      begun: (step, row of the log, window) -> sentences on what begins to be wrong.
      remedy: what to change where numbers are not finite, to follow "with".
    """

    config: ConfigDict
    steps: int
    monitor: str
    settled: int
    loss: str
    mesh: Mesh
    program: Program
    step_at: Callable[[int], tuple[Callable, int]]
    feed: Batches
    frozen: Any
    start: Callable[[], Any]
    evaluate: Callable[[Any, int], Seen]
    begun: Callable[[int, Mapping[str, float], Any], list[str]]
    remedy: str
