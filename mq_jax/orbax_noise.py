"""What Orbax says on the way, made fit for a user: its log silenced, its errors shortened."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def silence() -> None:
    """Keeps what Orbax logs of its inner life, and asyncio of its damage, off the terminal."""
    # Its failures reach the user as exceptions of mq_jax.checkpoint instead.
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).addFilter(_is_not_chatter)


def one_line(error: BaseException) -> str:
    """Kind and message of an error, short enough for a warning."""
    # TensorStore appends its whole specification in brackets, and puts the cause before it.
    message = re.sub(r" ?\[\w+=.*", "", " ".join(str(error).split()))
    if len(message) > 240:
        message = f"{message[:80]} ... {message[-150:]}"
    return f"{type(error).__name__}: {message}"


@contextmanager
def abandoned_reads_unreported() -> Iterator[None]:
    """Drops a traceback for each read that ends after another one has failed the restore."""
    report = sys.unraisablehook

    def report_others(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report


def _is_not_chatter(record: logging.LogRecord) -> bool:
    """False for what Orbax's own files log, and for the reads it left when one had failed."""
    abandoned = record.name == "asyncio" and "exception was never retrieved" in str(record.msg)
    return not abandoned and "/orbax/checkpoint/" not in record.pathname.replace("\\", "/")
