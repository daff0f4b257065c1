"""What Orbax says on the way, made fit for a user: its log silenced, its errors shortened."""

from __future__ import annotations

import logging
import re
import sys


def silence() -> None:
    """Keeps what Orbax logs of its inner life, and asyncio of its damage, off the terminal."""
    # Its failures reach the user as exceptions of mq_jax.runs.checkpoint instead.
    for logger in ("absl", "asyncio"):
        logging.getLogger(logger).addFilter(_is_not_chatter)
    # For good: a save fails in the background, at any time.
    if not isinstance(sys.unraisablehook, _ReportOthers):
        sys.unraisablehook = _ReportOthers(sys.unraisablehook)


def one_line(error: BaseException) -> str:
    """Kind and message of an error, short enough for a warning."""
    # TensorStore appends its whole specification in brackets, and puts the cause before it.
    message = re.sub(r" ?\[\w+=.*", "", " ".join(str(error).split()))
    if len(message) > 240:
        message = f"{message[:80]} ... {message[-150:]}"
    return f"{type(error).__name__}: {message}"


class _ReportOthers:
    """Drops a traceback for each read or write that ends after another one has failed."""

    def __init__(self, report):
        self._report = report

    def __call__(self, unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._report(unraisable)


def _is_not_chatter(record: logging.LogRecord) -> bool:
    """False for what Orbax's own files log, and for the reads it left when one had failed."""
    abandoned = record.name == "asyncio" and "exception was never retrieved" in str(record.msg)
    return not abandoned and "/orbax/checkpoint/" not in record.pathname.replace("\\", "/")
