"""Writing for people never fails the work, whatever becomes of the streams."""

import contextlib
import errno
import io
import logging
import os
import subprocess
import sys

import pytest
import tqdm
from absl import logging as absl_logging
from rich.console import Console

from mq_jax import commandline
from mq_jax.terminal import console, streams
from mq_jax.terminal.streams import Stream, standard_error, standard_output, tell, untold_losses
from mq_jax.terminal.tally import Tally


class Failing(io.StringIO):
    """A stream whose writing and flushing raise."""

    encoding = "utf-8"

    def __init__(self, error, tty=False):
        super().__init__()
        self.error, self.tty, self.tries = error, tty, 0

    def write(self, text):
        self.tries += 1
        if self.error is not None:
            raise self.error
        return super().write(text)

    def flush(self):
        if self.error is not None:
            raise self.error

    def isatty(self):
        return self.tty


class Closed(io.StringIO):
    """A stream that somebody closed: even isatty raises ValueError."""

    def __init__(self):
        super().__init__()
        self.close()


TROUBLES = {
    "a reader that went": lambda: Failing(BrokenPipeError(errno.EPIPE, "Broken pipe")),
    "the same on a terminal": lambda: Failing(
        BrokenPipeError(errno.EPIPE, "Broken pipe"), tty=True
    ),
    "a full disk": lambda: Failing(OSError(errno.ENOSPC, "No space left on device")),
    "a terminal that hung up": lambda: Failing(OSError(errno.EIO, "Input/output error"), tty=True),
    "a bad descriptor": lambda: Failing(OSError(errno.EBADF, "Bad file descriptor")),
    "what cannot be encoded": lambda: Failing(UnicodeEncodeError("ascii", "é", 0, 1, "no")),
    "a stream that is closed": Closed,
    "no stream at all": lambda: None,
}


@contextlib.contextmanager
def in_trouble(name):
    """Both streams of this process, in trouble."""
    untold_losses()
    with (
        contextlib.redirect_stdout(TROUBLES[name]()),
        contextlib.redirect_stderr(TROUBLES[name]()),
    ):
        yield
    untold_losses()


@pytest.fixture
def terminal_log(monkeypatch):
    """The program's own handlers, for one test."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = logging.getLogger("absl").level
    console.log_to_terminal()
    yield root
    logging.getLogger("absl").setLevel(level)


def progress():
    bar = console.Progress(10, 0)
    bar.advance()
    bar.report(1, ["9 images/s", "loss 1.0000"], 60.0)
    bar.close()


def images():
    tally = Tally(["a", "b"], set(), "encoded")
    tally.advance(1)
    tally.name_bad("b", "it is no image")
    tally.close()
    assert tally.sum_up("codes", strict=False) == 0


def asked_for_help():
    with pytest.raises(SystemExit) as ended:
        commandline.answer_help("usage é", ())
    assert ended.value.code == 0


WRITINGS = {
    "lines": lambda: tell("a line", "é"),
    "a block": lambda: streams.tell_block("two\nlines"),
    "a table": lambda: console.print_table("Title é", ["", "é"], [["a", "é"]]),
    "progress": progress,
    "a bar of images": images,
    "a log line": lambda: absl_logging.info("a line"),
    "a table in the log": lambda: console.log_table("T", ["a"], [["b"]], terminal=True),
    "another library's warning": lambda: logging.getLogger("other").warning("careful"),
    "help": asked_for_help,
    "a print of another library": lambda: print("é", file=standard_output(), flush=True),
    "its bar": lambda: list(tqdm.tqdm(range(2), file=standard_error())),
    "its table": lambda: Console(file=standard_output()).print("[b]x[/b]"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("writing", WRITINGS)
def test_no_trouble_of_the_streams_reaches_the_work(writing, trouble, terminal_log, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mq_jax.main", "--help"])
    with in_trouble(trouble):
        WRITINGS[writing]()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_log_file_tells_what_standard_error_lost_and_has_every_line(
    trouble, terminal_log, tmp_path
):
    console.log_to_file(tmp_path / "train.log")
    with in_trouble(trouble), contextlib.redirect_stderr(standard_error()):
        for number in range(3):
            absl_logging.warning("line %d", number)
    terminal_log.handlers[-1].close()
    text = (tmp_path / "train.log").read_text()
    assert [f"WARNING line {number}\n" in text for number in range(3)] == [True] * 3
    # A stream that was closed before the start is what somebody wanted.
    lost = 0 if trouble == "no stream at all" else 1
    assert text.count("WARNING Standard error cannot be written to") == lost
    assert len(text.splitlines()) == 3 + lost


def test_the_log_tells_once_what_standard_output_lost(terminal_log, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "stdout", Stream(TROUBLES["a full disk"](), "Standard output"))
    for _ in range(2):
        tell("lost")
    (line,) = sys.stderr.getvalue().splitlines()
    assert line == (
        "Standard output cannot be written to (No space left on device); going on without it"
    )


def test_a_disk_with_space_again_is_written_to_again():
    inner = TROUBLES["a full disk"]()
    stream = Stream(inner, "Standard output")
    stream.write("lost")
    inner.error = None
    stream.write("kept")
    assert inner.getvalue() == "kept"
    untold_losses()


def test_a_reader_that_went_is_not_tried_again():
    inner = TROUBLES["a reader that went"]()
    stream = Stream(inner, "Standard output")
    for _ in range(3):
        stream.write("lost")
    assert inner.tries == 1
    untold_losses()


@pytest.mark.parametrize("encoding, expected", [("ascii", "fr\\xe9chet \\u2264"), ("utf-8", None)])
def test_characters_that_an_encoding_lacks_are_escaped(encoding, expected, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    tell("fréchet ≤")
    assert raw.getvalue().decode(encoding) == f"{expected or 'fréchet ≤'}\n"
    console.print_table("≤", ["é"], [["≤"]])
    assert ("\\u2264" if expected else "≤") in raw.getvalue().decode(encoding)


# What a program does with its streams, in a process of its own.
PROGRAM = """
import sys
from mq_jax.terminal.streams import protect_streams, tell
protect_streams()
for number in range(3):
    tell("line é " + "x" * 2000)
    print("printed", flush=True)
print("left in the buffer")
print("on stderr", file=sys.stderr)
sys.exit(3)
"""


def shell(command, **variables):
    given = {"PROGRAM": PROGRAM, "PYTHON": sys.executable, **variables}
    return subprocess.run(
        ["bash", "-c", command], env=os.environ | given, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "command",
    [
        '"$PYTHON" -c "$PROGRAM" > /dev/full',
        '"$PYTHON" -c "$PROGRAM" 2> /dev/full',
        '"$PYTHON" -c "$PROGRAM" > /dev/full 2>&1',
        '"$PYTHON" -c "$PROGRAM" >&-',
        '"$PYTHON" -c "$PROGRAM" 2>&-',
        '"$PYTHON" -c "$PROGRAM" <&- >&- 2>&-',
        '"$PYTHON" -c "$PROGRAM" | true; exit ${PIPESTATUS[0]}',
        '"$PYTHON" -c "$PROGRAM" 2>&1 | true; exit ${PIPESTATUS[0]}',
        'PYTHONIOENCODING=ascii "$PYTHON" -c "$PROGRAM"',
    ],
)
def test_the_exit_code_is_the_promised_one_and_the_interpreter_ends_in_silence(command):
    ended = shell(command)
    assert ended.returncode == 3
    assert "Exception ignored" not in ended.stderr and "Traceback" not in ended.stderr


def test_a_file_is_not_opened_in_the_place_of_a_closed_stream(tmp_path):
    code = (
        "import os; from mq_jax.terminal.streams import protect_streams; protect_streams();"
        f"file = open({str(tmp_path / 'data')!r}, 'w'); os.write(2, b'for a person');"
        "os._exit(file.fileno())"
    )
    ended = shell('"$PYTHON" -c "$CODE" <&- >&- 2>&-', CODE=code)
    assert ended.returncode > 2
    assert (tmp_path / "data").read_bytes() == b""
