"""Batches from a source: an infinite training stream and one pass for evaluation.

The training stream is a pure function of (source, transform, batch_size, seed): batch k is the
same whichever thread or worker process computes it and wherever the stream starts, and the rows
of process p are rows p·b to (p+1)·b of the global batch. So the step number alone restores it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from multiprocessing import resource_tracker

import grain
import numpy as np
from absl import flags

from mq_jax.data.sources import Source
from mq_jax.devices.interrupt import SIGNALS
from mq_jax.images.transforms import apply_transform

MAX_SKIPS = 8

_EVAL_BUFFER = 2

# Grain's order of few records is a walk over so many places, until it comes by one of theirs.
_PLACES = 2**16
# Of the walk, on a CPU core of 2023; and of a row, which nobody notices beside reading an image.
_PLACES_PER_MS, _UNNOTICED_MS = 3000, 1


def train_stream(
    source: Source,
    transform: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 1,
    workers: int = 0,
    buffer: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Streams augmented batches without end, reshuffled every epoch.

    A record that cannot be read, or transformed, is replaced by the next one that can, which its
    epoch then shows twice: so batches stay full, and no other row moves.

    Args:
      source: the records.
      transform: augmentation, as `make_train_transform` returns it.
      batch_size: rows of the global batch, over all processes.
      seed: of order and augmentation, at least 0.
      start: number of batches already consumed.
      process_index: which process this is.
      process_count: how many processes share the global batch.
      threads: reading threads, in each worker process where there are any; 0 reads on demand.
      workers: worker processes, for when one interpreter is too slow. They start by "spawn", so
        the calling script needs an `if __name__ == "__main__"` guard.
      buffer: batches read ahead (at least one per thread), in each worker process where there
        are any.

    Returns:
      An iterator of dicts, b = batch_size / process_count: image u8[b, S, S, 3], label i32[b],
      skipped i64[b, MAX_SKIPS] (records found unreadable on the way, padded with -1). It has
      close() and, without worker processes, get_state() and set_state().

    Raises:
      ValueError: an argument is out of range, the source is empty, or (while iterating) more
        than MAX_SKIPS records in a row cannot be read.
    """
    local_size = rows_of_process(source, batch_size, process_index, process_count)
    if start < 0 or seed < 0:
        raise ValueError(f"start is {start} and seed is {seed}; expected both to be at least 0.")
    rows = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    rows = rows.random_map(_make_train_row(source, transform))
    # Without drop_remainder, the length of an endless stream of 1-row batches overflows.
    batches = rows.batch(local_size, drop_remainder=True)[process_index::process_count]
    if workers:
        _accept_default_flags()
        _start_tracker()
        # Grain cannot set the state of several workers; an index shift does the same.
        stream = batches[start:].to_iter_dataset(read_options(threads, buffer))
        options = grain.MultiprocessingOptions(workers, buffer)
        return iter(stream.mp_prefetch(options, worker_init_fn=_attach_worker))
    iterator = iter(batches.to_iter_dataset(read_options(threads, buffer)))
    iterator.set_state({"next_index": start})
    return iterator


def shuffling_cost(count: int) -> str:
    """What to know of a set so small that its order takes longer than its images.

    Args:
      count: records of the set.

    Returns:
      A sentence, or "" for a set of another size.
    """
    milliseconds = _PLACES / count / _PLACES_PER_MS
    # One record has no order.
    if count == 1 or milliseconds < _UNNOTICED_MS:
        return ""
    return (
        f"{count} images are few: to shuffle them takes about {milliseconds:.0f} ms a "
        "row, the less the more they are; links to the same files, under further names, count too."
    )


def eval_batches(
    source: Source,
    transform: Callable[[np.ndarray], np.ndarray],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 1,
) -> Iterable[dict[str, np.ndarray]]:
    """Makes one ordered pass over a source; each `iter` starts a new one.

    Args:
      source: the records.
      transform: as `make_eval_transform` returns it.
      batch_size: rows of the global batch, over all processes.
      process_index: which process this is.
      process_count: how many processes share the global batch.
      threads: reading threads; 0 reads on demand.

    Returns:
      An iterable of dicts, equally many in every process, b = batch_size / process_count:
      image u8[b, S, S, 3], label i32[b] (-1: none), index i64[b] (record number, -1 where the
      last batch is padded), mask f32[b] (1 for a row that counts, 0 for padding and for a record
      that cannot be read, whose image is zero), skipped i64[b] (number of such a record, else -1).

    Raises:
      ValueError: an argument is out of range or the source is empty.
    """
    local_size = rows_of_process(source, batch_size, process_index, process_count)
    padded_length = -(-len(source) // batch_size) * batch_size
    rows = grain.MapDataset.range(padded_length).map(_make_eval_row(source, transform))
    batches = rows.batch(local_size)[process_index::process_count]
    return batches.to_iter_dataset(read_options(threads, _EVAL_BUFFER))


def read_options(threads: int, buffer: int) -> grain.ReadOptions:
    """How Grain reads ahead; its own defaults are 16 threads and 500 whole batches.

    Args:
      threads: that read; 0 reads on demand.
      buffer: elements read ahead, at least one for each thread.

    Returns:
      The options.

    Raises:
      ValueError: either is out of range.
    """
    if threads < 0 or buffer < 1:
        raise ValueError(f"threads is {threads}, buffer {buffer}; expected at least 0 and 1.")
    # Each thread computes a whole batch, so fewer places than threads would idle some.
    ahead = max(buffer, threads) if threads else 0
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)


def rows_of_process(source: Sized, batch_size: int, process_index: int, process_count: int) -> int:
    """How many rows of a batch a process has.

    Args:
      source: the records.
      batch_size: rows of the global batch, over all processes.
      process_index: which process this is.
      process_count: how many processes share the global batch.

    Returns:
      batch_size / process_count.

    Raises:
      ValueError: the source is empty, or an argument is out of range.
    """
    if not len(source):
        raise ValueError("the source is empty; expected at least one record.")
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index is {process_index}; expected 0 <= process_index < {process_count}."
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}; expected a positive multiple of the number of "
            f"processes, {process_count}."
        )
    return batch_size // process_count


def _make_train_row(source: Source, transform: Callable) -> Callable:
    """Makes the function from a record number and a generator to a row."""

    def row(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        image, label, skipped = _next_readable(source, transform, index, rng)
        return {"image": image, "label": np.int32(label), "skipped": skipped}

    return row


def _next_readable(
    source: Source, transform: Callable, index: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, np.ndarray]:
    """Image and label of the first good record from `index` on; those skipped: i64[MAX_SKIPS]."""
    skipped: list[int] = []
    reason = ""
    while len(skipped) <= MAX_SKIPS:
        candidate = (index + len(skipped)) % len(source)
        try:
            record = source[candidate]
            image = apply_transform(transform, record.image, rng)
        except ValueError as error:
            skipped.append(candidate)
            reason = str(error)
            continue
        padding = [-1] * (MAX_SKIPS - len(skipped))
        return image, record.label, np.array(skipped + padding, np.int64)
    names = ", ".join(source.name(i) for i in dict.fromkeys(skipped))
    raise ValueError(
        f"more than {MAX_SKIPS} records in a row cannot be read; check the data. The last reason: "
        f"{reason} The records: {names}."
    )


def _make_eval_row(source: Source, transform: Callable) -> Callable:
    """Makes the function from a row number, past the end for padding, to a row."""
    # The transform alone knows the size of its images.
    blank = np.zeros_like(transform(np.zeros((1, 1, 3), np.uint8)))

    def row(index: int) -> dict[str, np.ndarray]:
        image, label, real, skipped = blank, -1, index < len(source), -1
        if real:
            try:
                record = source[index]
                image, label = apply_transform(transform, record.image), record.label
            except ValueError:
                skipped = index
        return {
            "image": image,
            "label": np.int32(label),
            "index": np.int64(index if real else -1),
            "mask": np.float32(real and skipped < 0),
            "skipped": np.int64(skipped),
        }

    return row


def _attach_worker(index: int, count: int) -> None:
    """Makes a worker process live exactly as long as the main process wants it."""
    # A terminal's Ctrl-C reaches every process, and the main one still needs its batches to save.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _start_tracker() -> None:
    """Starts Python's helper process deaf to the signals that ask the main process to save."""
    # By itself it ignores two of them alone; what is blocked here stays blocked in it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends a worker whose main process was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _accept_default_flags() -> None:
    """Lets Grain read its own absl flags in a program that has not parsed any."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
