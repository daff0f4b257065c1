"""The account of unreadable records: each named once, too many refused."""

from collections.abc import Iterable

import jax
import numpy as np
from absl import logging

from mq_jax.data.sources import Source
from mq_jax.devices.agreement import gather, together
from mq_jax.devices.reading import apart

# What becomes of an unreadable record: in training, whose batches stay full, and in evaluation.
SEEN_TWICE = "the next one seen twice instead"
LEFT_OUT = "left out"

_NAMED_IN_ERROR = 5


class BadImages:
    """The distinct records of a source found unreadable so far.

    What a batch skips depends on its step alone, so restoring `indices` at a step resumes the
    account exactly. Several processes agree, since each records what all of them skipped.
    """

    def __init__(self, source: Source, max_share: float, instead: str):
        """Starts an empty account.

        Args:
          source: the source whose record numbers will be recorded.
          max_share: largest tolerated share of unreadable records, in [0, 1].
          instead: what becomes of such a record, for the log: SEEN_TWICE or LEFT_OUT.

        Raises:
          ValueError: `max_share` is out of range.
        """
        if not 0 <= max_share <= 1:
            raise ValueError(f"data.max_bad_share is {max_share}; expected a share in [0, 1].")
        self._source = source
        self._max_share = max_share
        self._instead = instead
        self._bad: set[int] = set()

    @property
    def indices(self) -> list[int]:
        """The bad records' numbers, sorted; plain integers, fit for JSON."""
        return sorted(self._bad)

    def restore(self, indices: Iterable[int]) -> None:
        """Replaces the account by one saved as `indices`; logs nothing."""
        self._bad = {int(index) for index in indices}

    def record(self, skipped: np.ndarray) -> None:
        """Adds what a batch skipped, and logs each new record with its name and reason.

        Args:
          skipped: i64 of any shape, record numbers; negative ones are padding.

        Raises:
          ValueError: the distinct bad records exceed the tolerated share.
        """
        found = {int(index) for index in np.unique(skipped) if index >= 0}
        for index in sorted(found - self._bad):
            self._bad.add(index)
            if jax.process_index():
                continue  # The first process names them for all.
            logging.warning(
                "Unreadable image %d of at most %d, %s: %s: %s",
                len(self._bad),
                int(self._max_share * len(self._source)),
                self._instead,
                self._source.name(index),
                self._reason(index),
            )
        if len(self._bad) > self._max_share * len(self._source):
            raise ValueError(self._too_many())

    def record_of_all(self, skipped: Iterable[np.ndarray]) -> None:
        """Adds what batches skipped in all processes; each of them makes the same calls.

        Args:
          skipped: i64 arrays of any shapes, as record takes them.

        Raises:
          ValueError: as record, in the first process.
          FailedElsewhere: the same in the others.
        """
        own = np.concatenate([np.zeros(0, np.int32), *[np.ravel(rows) for rows in skipped]])
        everyones = np.concatenate(gather(own[own >= 0].astype(np.int32)))
        if not len(everyones):
            return
        with together():
            self.record(everyones)

    def _reason(self, index: int) -> str:
        """Why a record cannot be read, found by reading it once more."""
        try:
            apart(lambda: self._source[index])
        except ValueError as error:
            return str(error)
        return "it can be read now: the failure did not last, or came from its augmentation."

    def _too_many(self) -> str:
        """The error for an exceeded share."""
        share = len(self._bad) / len(self._source)
        names = ", ".join(self._source.name(index) for index in self.indices[:_NAMED_IN_ERROR])
        return (
            f"{len(self._bad)} of {len(self._source)} images cannot be read ({share:.2%}); at most "
            f"{self._max_share:.2%} are tolerated. The first: {names}. Repair or remove them, or "
            "raise data.max_bad_share."
        )
