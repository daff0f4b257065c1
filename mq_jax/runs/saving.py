"""Checkpoints that a thread writes, so that the steps of a training wait for none of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax

from mq_jax.runs.checkpoint import Checkpoints


class Saver:
    """Writes checkpoints one after the other, in the order in which they are given.

    Orbax takes its time for each array before the bytes of any are on their way. In several
    processes its barriers are collectives, which must lie between the same steps in all of them:
    there the caller waits, as long as Checkpoints.save does.

    A context manager: leaving it waits.

    Args:
      checkpoints: nobody else uses them until wait() or the end of the block.
      before: called before each, in the thread: what must be on the disk whenever it is.
    """

    def __init__(self, checkpoints: Checkpoints, before: Callable[[], None]):
        self._checkpoints, self._before = checkpoints, before
        self._pool = futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: futures.Future | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *exception) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown(wait=False)

    def save(self, step: int, tree, extra: dict[str, Any], metrics: dict[str, Any] | None) -> None:
        """Begins to write a checkpoint once the one before is on disk.

        Args:
          step: as Checkpoints.save's, and so the others.
          tree: arrays that no step donates.
          extra: nobody changes it.
          metrics: likewise.

        Raises:
          OSError: the one before could not be written or read back.
        """
        self.wait()
        given = step, tree, extra, metrics
        if jax.process_count() == 1:
            self._writing = self._pool.submit(self._write, *given)
        else:
            self._before()
            self._checkpoints.save(*given)

    def check(self) -> None:
        """Looks, without waiting, whether a save has failed.

        Raises:
          OSError: it has; as wait.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Blocks until the last save is on disk.

        Raises:
          OSError: it could not be written or read back; told once.
        """
        if self._writing is None:
            self._checkpoints.wait()
            return
        # Ctrl-C may end this wait; whoever waits next must then do so still.
        futures.wait([self._writing])
        written, self._writing = self._writing, None
        if written.exception() is not None:
            # Orbax raises it in each thread that waits, once: in this one, it would be later.
            with contextlib.suppress(OSError):
                self._checkpoints.wait()
        written.result()

    def _write(self, *given):
        """All of a save, in the thread."""
        self._before()
        self._checkpoints.save(*given)
        self._checkpoints.wait()
