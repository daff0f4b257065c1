"""Metrics out: a JSON-lines file, TensorBoard event files and PNG images.

The method names are those of CLU's MetricWriter, which itself cannot be imported without
TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from mq_jax.storage.files import read_bytes, replacing, write_atomically
from mq_jax.storage.schema import NUMBER, Each, Nullable, check, parse, whole

# Of metrics.jsonl: a million lines.
_MOST_BYTES = 2**30
_ROW, _STEP = Each(Nullable(NUMBER)), {"step": whole(0)}


@contextlib.contextmanager
def for_people(what: str) -> Iterator[None]:
    """A block that writes what only people look at: the work goes on where that fails.

    Args:
      what: as the warning names it.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        logging.warning("%s cannot be written (%s); going on without it", what, reason)


class MetricsFile:
    """One JSON object a line, `step` first; every step once, in increasing order.

    Opening drops the lines of steps that come again and a line torn by a crash.

    Args:
      path: of the file; its folder is created.
      resume_step: the last step that is kept; None starts from the beginning with no line.
    """

    def __init__(self, path, resume_step: int | None = None):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._last_step = -1
        self._failure: OSError | None = None
        kept = []
        for row in _rows(self.path) if resume_step is not None else ():
            if self._last_step < row["step"] <= resume_step:
                kept.append(json.dumps(row) + "\n")
                self._last_step = row["step"]
        write_atomically(self.path, "".join(kept))
        self._file = open(self.path, "a", encoding="utf-8")

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Appends one line, which outlives a crash of the process but not of the machine.

        Args:
          step: larger than that of the line before.
          scalars: numbers or arrays of one element; NaN and infinity, which JSON does not
            have, become null.

        Raises:
          ValueError: the step has a line already.
          OSError: it cannot be written; the file is closed.
        """
        if step <= self._last_step:
            raise ValueError(
                f"{self.path} has step {self._last_step}, so step {step} cannot be written; "
                "expected all scalars of a step in one call, in increasing order of steps."
            )
        row = {"step": int(step)} | {name: _json_number(v) for name, v in scalars.items()}
        try:
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.close()
            # The system names no file.
            self._failure = OSError(error.errno, error.strerror, str(self.path))
            raise self._failure from error
        self._last_step = step

    def sync(self) -> None:
        """Puts the lines on the disk itself, before a checkpoint that counts on them.

        Raises:
          OSError: it cannot be done, or a line could not be written.
        """
        if self._failure is not None:
            raise self._failure
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path) -> list[dict[str, Any]]:
    """The lines of a metrics file, also while it is being written.

    Args:
      path: of the file.

    Returns:
      One dict a line, `step` first; null is None.

    Raises:
      FileNotFoundError: there is no such file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a metrics file of training.")
    return list(_rows(path))


class EventWriter:
    """TensorBoard event files with scalars and images.

    Args:
      directory: of the event files, created if absent.
      resume_step: TensorBoard hides what earlier files say of later steps; None hides it all.
    """

    def __init__(self, directory, resume_step: int | None = None):
        first_step = 0 if resume_step is None else resume_step + 1
        pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: its thread dies on a full disk, and the next call waits forever.
        # The suffix tells the file from that of a run that ended within the same second.
        self._writer = EventsWriter(f"{directory}/events", f".from-{first_step:08d}")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(first_step, session_log=start)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes the numbers that are finite, f32 in the file, under their names."""
        for name, value in scalars.items():
            # The mean over no outer update, say; TensorBoard has no place for it on a curve.
            if math.isfinite(float(value)):
                self._write(step, summary=summary.scalar(name, float(value)))
        self.flush()

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes images u8[H, W, 3] under their names, as PNG."""
        for name, image in images.items():
            self._write(step, summary=summary.image(name, np.asarray(image), dataformats="HWC"))
        self.flush()

    def flush(self) -> None:
        """Hands everything written to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, step: int, **content) -> None:
        self._writer.write_event(event_pb2.Event(step=step, wall_time=time.time(), **content))


class Writers:
    """All outputs of a run: `metrics.jsonl`, `tensorboard/` and `<name>/<step>.png`.

    The first is needed to go on with a run; without the others, which are for people, it goes on.

    Args:
      workdir: the folder of the run.
      resume_step: step of the checkpoint that the run goes on from; None at the beginning.
    """

    def __init__(self, workdir, resume_step: int | None = None):
        self._workdir = pathlib.Path(workdir)
        self._metrics = MetricsFile(self._workdir / "metrics.jsonl", resume_step)
        self._events: EventWriter | None = None
        self._told = False
        self._write_events(0 if resume_step is None else resume_step + 1, lambda events: None)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes all scalars of a step, once, to the metrics file and the event file.

        Args:
          step: larger than that of the call before.
          scalars: numbers or arrays of one element, by names such as "eval/mse".

        Raises:
          ValueError: the step has been written already.
          OSError: the metrics file cannot be written.
        """
        self._metrics.write(step, scalars)
        self._write_events(step, lambda events: events.write_scalars(step, scalars))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes images to the event file and, each, to a PNG file of its own.

        Args:
          step: that the images belong to.
          images: u8[H, W, 3] by name, such as "reconstructions".
        """
        self._write_events(step, lambda events: events.write_images(step, images))
        for name, image in images.items():
            path = self._workdir / name / f"{step:08d}.png"
            with for_people(f"The picture {path}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary:
                    Image.fromarray(np.asarray(image)).save(temporary, format="png")

    def flush(self) -> None:
        """Puts the metrics on the disk itself; due before each checkpoint."""
        self._metrics.sync()

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self._close_events()
        self._metrics.close()

    def _write_events(self, step, write):
        """Writes to the event file; one that failed is given up, and the next call opens a new."""
        try:
            if self._events is None:
                self._events = EventWriter(
                    self._workdir / "tensorboard", step - 1 if step else None
                )
            write(self._events)
            self._told = False
        except OSError as error:
            self._close_events()
            if not self._told:
                reason = error.strerror or error
                message = "TensorBoard's events cannot be written (%s); going on without them"
                logging.warning(message, reason)
            self._told = True

    def _close_events(self):
        """Closes the event file; what its buffer holds may be lost with a full disk."""
        events, self._events = self._events, None
        if events is not None:
            with contextlib.suppress(OSError):
                events.close()


class NullWriters:
    """What processes other than the first write to: nothing."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Drops the scalars."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Drops the images."""

    def flush(self) -> None:
        """Has nothing to flush."""

    def close(self) -> None:
        """Has nothing to close."""


def _rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole."""
    lines = read_bytes(path, _MOST_BYTES).splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse(line, _ROW)
            check(row, _STEP)
            is_whole = line.endswith(b"\n")
        except ValueError:
            is_whole = False
        if is_whole:
            yield row
        elif number < len(lines):
            logging.warning("Line %d of %s is damaged; leaving it out", number, path)


def _json_number(value) -> int | float | None:
    number = np.asarray(value).item()
    return number if math.isfinite(number) else None
