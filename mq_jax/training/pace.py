"""How fast the steps go, and how long they wait for what they are given."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

SPEED, INPUT_WAIT = "train/images_per_second", "train/input_wait"


class _Moment(NamedTuple):
    """When so many steps were done, and the seconds that had been waited by then."""

    step: int
    time: float
    waited: float


class Pace:
    """The clock of a training, between steps that are known to be done.

    Args:
      batch: images of a step, of one level.
    """

    def __init__(self, batch: int):
        self._batch, self._waited = batch, 0.0
        self.start(0)

    def start(self, step: int) -> None:
        """Begins anew: what came before, an evaluation say, does not count.

        Args:
          step: that is done; the devices are idle.
        """
        self._since = self._now = self._moment(step)

    def reached(self, step: int) -> None:
        """Takes the time.

        Args:
          step: that is just done.
        """
        self._now = self._moment(step)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that does nothing but wait for the next batch."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @property
    def images_per_second(self) -> float:
        """Of one level, since the clock was started or read."""
        return (self._now.step - self._since.step) * self._batch / self._seconds

    def read(self) -> dict[str, float]:
        """The metrics since the clock was started or read, by logged name; begins anew."""
        waited = (self._now.waited - self._since.waited) / self._seconds
        row = {SPEED: self.images_per_second, INPUT_WAIT: waited}
        self._since = self._now
        return row

    @property
    def _seconds(self):
        return self._now.time - self._since.time

    def _moment(self, step):
        return _Moment(step, time.monotonic(), self._waited)
