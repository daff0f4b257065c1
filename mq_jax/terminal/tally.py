"""What a command on many images has done, has left and could not do: bar, lines, exit code."""

import time
from collections.abc import Sequence

from absl import logging

from mq_jax.terminal.console import ImageBar
from mq_jax.terminal.streams import tell


class Tally:
    """Counts images.

    Args:
      names: of all images.
      done: those that earlier calls did.
      verb: what is done to one, for the last line.

    Attributes:
      left: names of those to do.
      bad: names and reasons of those that cannot be read or written, fit for JSON.
    """

    def __init__(self, names: Sequence[str], done: set[str], verb: str):
        self.left = [name for name in names if name not in done]
        self.bad: list[dict[str, str]] = []
        self._total, self._kept, self._verb = len(names), len(names) - len(self.left), verb
        self._count, self._started = 0, time.monotonic()
        self._bar = ImageBar(len(names), self._kept)

    def advance(self, images: int) -> None:
        """Counts images that are done."""
        self._count += images
        self._bar.advance(images)

    def name_bad(self, name: str, reason: str) -> None:
        """Names an image that cannot be read or written."""
        self.bad.append({"name": name, "reason": reason})
        logging.warning("Skipping %s: %s", name, reason)
        self._bar.advance(1)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def sum_up(self, where: str, strict: bool) -> int:
        """Prints the last line.

        Args:
          where: what was written, and where.
          strict: whether one bad image is a failure.

        Returns:
          The exit code: 1 where every image is bad, or one and `strict`.
        """
        parts = [f"{self._count} {self._verb}, {where}"]
        if self._count:
            parts.append(f"{self._count / (time.monotonic() - self._started):.1f} images/s")
        if self._kept:
            parts.append(f"{self._kept} were there already")
        if self.bad:
            parts.append(f"{len(self.bad)} of {self._total} cannot be read or written")
        tell("; ".join(parts))
        return int(len(self.bad) == self._total or (strict and bool(self.bad)))
