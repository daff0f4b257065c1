"""What the processes of a run tell one another; in a single process nothing is sent."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class FailedElsewhere(Exception):
    """Another process failed; the message says which, and why."""


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that succeeds in all processes or fails in all of them.

    Every process of a run enters the same blocks in the same order.

    Raises:
      FailedElsewhere: another process failed, or a lower one for the same reason. The process
        that failed raises its own error.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    if not jax.distributed.is_initialized():
        if error is not None:
            raise error
        return
    mine = "" if error is None else str(error) or type(error).__name__
    # A path in it need not be text that UTF-8 can hold.
    mine = mine.encode(errors="backslashreplace").decode()
    gathered = gather(np.frombuffer(mine.encode(), np.uint8))
    texts = [text.tobytes().decode() for text in gathered]
    if error is not None and texts.index(mine) == jax.process_index():
        raise error
    failed = [process for process, text in enumerate(texts) if text]
    if failed:
        raise FailedElsewhere(f"process {failed[0]}: {texts[failed[0]]}") from error


def gather(rows: np.ndarray) -> list[np.ndarray]:
    """The rows of all processes, in each of them.

    Args:
      rows: [n, ...], of at most 32 bits; n may differ between the processes, the rest may not.

    Returns:
      The rows of each process, in the order of their indices.
    """
    if not jax.distributed.is_initialized():
        return [rows]
    own = jax.process_index()
    counts = np.zeros(jax.process_count(), np.int32)
    counts[own] = len(rows)
    counts = _on_host(_total(counts))
    if not counts.any():
        return [rows] * len(counts)
    ends = np.cumsum(counts)
    everyone = np.zeros((ends[-1], *rows.shape[1:]), rows.dtype)
    # Each process leaves zeros where the rows of the others go.
    everyone[ends[own] - counts[own] : ends[own]] = rows
    return np.split(_on_host(_total(everyone)), ends[:-1])


class AgreedSignal:
    """The signal that any process has received, told to all of them at the same step."""

    def __init__(self):
        self._told = None

    def after_step(self, name: str | None) -> str | None:
        """Tells the others of this process's signal; called by all, once a step.

        The answer is that of the call before, which the devices have ready by now, so that no
        process waits for another one here.

        Args:
          name: of the signal that this process has received, None without one.

        Returns:
          The name of a signal, the same in all processes; None where no one had any.
        """
        if not jax.distributed.is_initialized():
            return name
        counts = np.zeros(signal.NSIG, np.int32)
        if name is not None:
            counts[signal.Signals[name]] = 1
        before, self._told = self._told, _total(counts)
        found = [] if before is None else np.flatnonzero(_on_host(before))
        return signal.Signals(int(found[-1])).name if len(found) else None


def _total(array: np.ndarray) -> jax.Array:
    """The sum over the processes, on a device of each; returns before it is computed."""
    rows, summed = _adder()
    with _loss_explained():
        return summed(jax.make_array_from_process_local_data(rows, array[None]))


def _on_host(total: jax.Array) -> np.ndarray:
    """The value of what _total returned."""
    with _loss_explained():
        return np.asarray(total)


@contextlib.contextmanager
def _loss_explained() -> Iterator[None]:
    """Turns the failure of a sum into its most likely reason."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"Another process of this run is lost; its own messages tell why ({error})."
        ) from error


@functools.cache
def _adder() -> tuple[NamedSharding, Callable]:
    """How arrays of one row for each process are laid out, and the sum of their rows."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh([first[process] for process in range(jax.process_count())], ("process",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    summed = jax.jit(lambda rows: rows.sum(0, dtype=rows.dtype), out_shardings=everywhere)
    return NamedSharding(mesh, PartitionSpec("process")), summed
