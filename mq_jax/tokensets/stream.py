"""Batches of a token set: an infinite training stream and one pass for evaluation.

As data.pipeline's: batch k is a pure function of the set, batch size, view and seed, and the rows
of process p are rows p·b to (p+1)·b of the global batch. So the step number alone restores it.
"""

from collections.abc import Iterable, Iterator

import grain
import numpy as np

from mq_jax.data.pipeline import read_options, rows_of_process
from mq_jax.tokensets.reading import TokenSet


def token_stream(
    tokens: TokenSet,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    view: str = "",
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 1,
    buffer: int = 16,
) -> Iterator[dict[str, np.ndarray]]:
    """Streams batches without end, reshuffled every epoch.

    Args:
      tokens: from open_tokens.
      batch_size: rows of the global batch, over all processes.
      seed: of order and views, at least 0.
      start: number of batches already consumed.
      view: a name of tokens.views; "" draws one at each visit of an image, each as likely.
      process_index: which process this is.
      process_count: how many processes share the global batch.
      threads: reading threads; 0 reads on demand.
      buffer: batches read ahead, at least one for each thread.

    Returns:
      An iterator of dicts, b = batch_size / process_count: tokens i32[b, h, w] or
      i32[b, h, w, J], label i32[b] (-1: none). It has close(), get_state() and set_state().

    Raises:
      ValueError: an argument is out of range, or (while iterating) a record is damaged.
    """
    rows = rows_of_process(tokens, batch_size, process_index, process_count)
    if start < 0 or seed < 0:
        raise ValueError(f"start is {start} and seed is {seed}; expected both to be at least 0.")
    fixed = tokens.number(view) if view else None

    def row(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        number = int(rng.integers(len(tokens.views))) if fixed is None else fixed
        item = tokens.view(index, number)
        return {"tokens": item.tokens, "label": np.int32(item.label)}

    images = grain.MapDataset.range(len(tokens)).seed(seed).shuffle().repeat().random_map(row)
    # Without drop_remainder, the length of an endless stream of 1-row batches overflows.
    batches = images.batch(rows, drop_remainder=True)[process_index::process_count]
    iterator = iter(batches.to_iter_dataset(read_options(threads, buffer)))
    iterator.set_state({"next_index": start})
    return iterator


def token_batches(
    tokens: TokenSet,
    *,
    batch_size: int,
    view: str = "",
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 1,
) -> Iterable[dict[str, np.ndarray]]:
    """Makes one ordered pass over a set; each `iter` starts a new one.

    Args:
      tokens: from open_tokens.
      batch_size: rows of the global batch, over all processes.
      view: a name of tokens.views; "" for the first.
      process_index: which process this is.
      process_count: how many processes share the global batch.
      threads: reading threads; 0 reads on demand.

    Returns:
      An iterable of dicts, equally many in every process, b = batch_size / process_count: tokens
      i32[b, h, w] or i32[b, h, w, J], label i32[b] (-1: none), index i64[b] (number in the set, -1
      where the last batch is padded), mask f32[b] (0 for padding, whose tokens are 0).

    Raises:
      ValueError: an argument is out of range, or (while iterating) a record is damaged.
    """
    rows = rows_of_process(tokens, batch_size, process_index, process_count)
    number = tokens.number(view) if view else 0
    blank = np.zeros(tokens.shape, np.int32)

    def row(index: int) -> dict[str, np.ndarray]:
        real = index < len(tokens)
        item = tokens.view(index, number) if real else None
        return {
            "tokens": item.tokens if real else blank,
            "label": np.int32(item.label if real else -1),
            "index": np.int64(index if real else -1),
            "mask": np.float32(real),
        }

    padded = -(-len(tokens) // batch_size) * batch_size
    batches = grain.MapDataset.range(padded).map(row).batch(rows)[process_index::process_count]
    return batches.to_iter_dataset(read_options(threads, 2))
