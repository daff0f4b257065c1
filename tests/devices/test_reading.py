"""Regular files alone are read, and a read that hangs keeps no process alive."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mq_jax.devices.reading import apart, open_regular, read_regular


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


IRREGULAR = {
    "a FIFO": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("read", [open_regular, read_regular])
@pytest.mark.parametrize("through_link", [False, True])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind, read, through_link):
    path = tmp_path / "x"
    IRREGULAR[kind](path)
    if through_link:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    with pytest.raises(
        OSError, match=f"{kind}.*; expected a regular file: .*{path.name}"
    ) as caught:
        read(path)
    assert isinstance(caught.value, IsADirectoryError) == (kind == "a folder")
    assert caught.value.filename == str(path)


def test_a_fifo_with_a_writer_is_refused_too(tmp_path):
    os.mkfifo(tmp_path / "x")
    descriptor = os.open(tmp_path / "x", os.O_RDWR)
    try:
        os.write(descriptor, b"data")
        with pytest.raises(OSError, match="a FIFO"):
            read_regular(tmp_path / "x")
    finally:
        os.close(descriptor)


def test_regular_files_and_links_to_them_are_read(tmp_path):
    (tmp_path / "x").write_bytes(b"\0" * 100_000)
    (tmp_path / "link").symlink_to("x")
    for name in ("x", "link"):
        assert read_regular(tmp_path / name) == open_regular(tmp_path / name).read()
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "y")


def test_a_function_apart_gives_its_value_or_its_error():
    assert apart(lambda: 3) == 3
    with pytest.raises(KeyError, match="x"):
        apart(lambda: {}["x"])


def test_a_signal_interrupts_the_wait_for_a_function_that_hangs():
    hanging, before = threading.Event(), signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            apart(lambda: hanging.wait(60))
    finally:
        hanging.set()
        signal.signal(signal.SIGALRM, before)


# The open of a FIFO stands for a call into a mount whose server is gone.
_HANGING = """
import concurrent.futures, sys, threading
from mq_jax.devices.reading import end_within
opening = threading.Event()
def read():
    opening.set()
    open(sys.argv[1], "rb")
concurrent.futures.ThreadPoolExecutor(1).submit(read)
opening.wait()
end_within(float(sys.argv[2]), 130)
print("the end", flush=True)
"""


def test_a_process_ends_although_a_thread_hangs_in_a_read(tmp_path):
    os.mkfifo(tmp_path / "x")
    started = time.monotonic()
    command = [sys.executable, "-c", _HANGING, str(tmp_path / "x"), "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "the end\n", "")
    assert time.monotonic() - started < 20


def test_an_error_says_what_the_system_says_where_it_is_none_of_these(tmp_path):
    (tmp_path / "x").symlink_to("x")
    with pytest.raises(OSError) as caught:
        read_regular(tmp_path / "x")
    assert caught.value.errno == errno.ELOOP
