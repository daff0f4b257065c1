"""Log lines: what comes from outside forges none, what fails loses none without a word."""

import contextlib
import errno
import io
import logging
import pathlib
import re

import pytest

from mq_jax.terminal import console, logs
from mq_jax.terminal.escaping import Block

OURS = str(pathlib.Path(logs.__file__))
LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ (INFO|WARNING|ERROR|DEBUG) ")

FORGED = "a.jpg\n2026-01-01 00:00:00,000 INFO step 3/12  loss 0\r\x1b[2K\x9b1A\u2028\u202eb\udcff"


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A logger with the program's log file alone, and the file."""
    logger, path = logging.Logger("test"), tmp_path / "train.log"
    with monkeypatch.context() as patched:
        patched.setattr(logging, "getLogger", lambda: logger)
        console.log_to_file(path)
    yield logger, path
    for handler in logger.handlers:
        handler.close()


def record(message, *arguments, of=OURS, info=None):
    return logging.LogRecord("absl", logging.WARNING, of, 1, message, arguments, info)


HOSTILE = {
    "a name": lambda: record("Skipping %s: %s", FORGED, "it is no image"),
    "a path": lambda: record("Skipping the damaged checkpoint %s", pathlib.Path("/x") / FORGED),
    "an error": lambda: record("error: %s", ValueError(f"{FORGED} is no image.")),
    "the system's error": lambda: record("error: %s", FileNotFoundError(2, "No file", FORGED)),
    "another library's message": lambda: record(f"cannot read {FORGED}", of="/lib/x.py"),
    "another library's name": lambda: record("cannot read %s", FORGED, of="/lib/x.py"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_name_from_outside_begins_a_line_or_reaches_the_terminal_as_a_command(kind, log):
    logger, path = log
    logger.handle(HOSTILE[kind]())
    data = path.read_bytes()
    lines = data.decode("utf-8").splitlines()
    assert [bool(LINE.match(line)) for line in lines] == [True] + [False] * (len(lines) - 1)
    # What begins no line of its own is indented.
    assert all(line.startswith("  ") for line in lines[1:])
    assert len(lines) == 1 or "library" in kind
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", data)
    assert all(part in data.decode() for part in ("a.jpg", "step 3/12", r"\x1b[2K", r"\udcff"))


def test_a_traceback_in_the_file_is_indented(log):
    logger, path = log
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        logger.handle(record("traceback", info=(ValueError, error, error.__traceback__)))
    first, *rest = path.read_text().splitlines()
    assert first.endswith("WARNING traceback") and len(rest) > 3
    assert all(line.startswith("  ") for line in rest)


@pytest.mark.parametrize("place", ["/lib/x.py", OURS])
def test_a_line_whose_arguments_do_not_fit_is_written_all_the_same(place, log):
    logger, path = log
    logger.handle(record("%d of %d", "two", of=place))
    (line,) = path.read_text().splitlines()
    assert line.endswith("WARNING %d of %d ('two',)")


def test_a_table_of_ours_keeps_its_lines(log):
    logger, path = log
    logger.handle(record("%s\n%s", "Title", Block("a b\n1 2")))
    assert path.read_text().splitlines()[1:] == ["a b", "1 2"]


class FullDisk:
    """A file that takes some bytes and then no more, until there is space again."""

    closed = False

    def __init__(self, space):
        self.space, self.data = space, b""

    def write(self, data):
        if not self.space:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: self.space]
        self.space -= len(taken)
        self.data += taken
        return len(taken)

    def close(self):
        self.closed = True


@pytest.mark.parametrize("space", [0, 10])
def test_a_full_disk_gets_one_line_and_the_log_says_later_what_it_lacks(space, log, monkeypatch):
    logger, _ = log
    (handler,) = logger.handlers
    disk = FullDisk(space)
    monkeypatch.setattr(handler, "_file", disk)
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        for number in range(3):
            logger.handle(record("line %d", number))
        assert error.getvalue() == (
            f"The log file {handler._path} cannot be written to (No space left on device); "
            "going on\n"
        )
        disk.space = 10**6
        for number in (3, 4):
            logger.handle(record("line %d", number))
    lines = disk.data.decode().splitlines()
    assert [LINE.sub("", line) for line in lines[-3:]] == [
        "3 line(s) are missing here",
        "line 3",
        "line 4",
    ]
    assert len(error.getvalue().splitlines()) == 1
    # The torn beginning of a line stands alone.
    assert len(lines) == 3 + bool(space)


def test_a_traceback_that_a_full_disk_does_not_take_is_no_further_line(log, monkeypatch):
    """The error that it belongs to has told already that the disk is full."""
    logger, _ = log
    monkeypatch.setattr(logger.handlers[0], "_file", FullDisk(0))
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        logger.handle(logging.LogRecord("absl", logging.DEBUG, OURS, 1, "traceback", (), None))
        assert error.getvalue() == ""
        logger.handle(record("error: no space"))
    assert len(error.getvalue().splitlines()) == 1


def test_a_log_file_that_cannot_be_opened_is_left_out_with_a_warning(tmp_path, caplog):
    console.log_to_file(tmp_path / "nowhere" / "train.log")
    assert "going on without it" in caplog.text
    (tmp_path / "train.log").mkdir()
    console.log_to_file(tmp_path / "train.log")
    assert caplog.text.count("going on without it") == 2
