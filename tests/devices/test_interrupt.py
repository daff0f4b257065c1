"""Signals: the first asks, the second insists."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from mq_jax.devices.interrupt import SIGNALS, Interrupt, Stopped, stopping


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_only_sets_a_flag_and_says_so(number, capfd):
    with Interrupt() as interrupt:
        assert not interrupt.requested and interrupt.signal_name is None
        os.kill(os.getpid(), number)
        assert interrupt.requested and interrupt.signal_name == number.name
    assert "finishing this step, then saving; press again" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_quits_at_once(number):
    before = signal.getsignal(number)
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt, match=number.name):
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_the_handlers_are_restored_on_exit():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError), Interrupt():
        raise RuntimeError
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGUSR1])
def test_a_warning_is_followed_by_the_end_that_it_announced_and_neither_insists(first):
    with Interrupt() as interrupt:
        for number in (first, first, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert interrupt.signal_name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ignored_from_the_start_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stopping(), Interrupt() as interrupt:
            os.kill(os.getpid(), number)
            assert not interrupt.requested
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_does_not_stop_the_step(monkeypatch):
    def write(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", write)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGHUP)
        assert interrupt.signal_name == "SIGHUP"


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_steps_a_signal_ends_the_work_under_its_name(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as error, stopping():
        with Interrupt() as interrupt:
            os.kill(os.getpid(), number)
        assert interrupt.requested
        os.kill(os.getpid(), number)
    assert isinstance(error.value, Stopped) == (number != signal.SIGINT)
    assert str(error.value) == ("" if number == signal.SIGINT else number.name)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("program", ["main", "tokenize"])
def test_ctrl_c_in_the_imports_is_one_line_and_code_130(program):
    command = [sys.executable, "-X", "importtime", "-m", f"mq_jax.{program}"]
    given = "encode --tokenizer t --input i --output o".split() if program == "tokenize" else []
    with subprocess.Popen([*command, *given], text=True, stderr=subprocess.PIPE) as starting:
        errors = iter(starting.stderr)
        # The first of many that JAX imports.
        assert any("jax" in line and "mq_jax" not in line for line in errors)
        starting.send_signal(signal.SIGINT)
        said = [line for line in errors if not line.startswith("import time:")]
    assert (starting.returncode, said) == (130, ["Stopped.\n"])


def test_in_another_thread_nothing_changes():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def body():
        with Interrupt() as interrupt:
            seen.append((signal.getsignal(signal.SIGTERM), interrupt.requested))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_a_loop_stops_after_the_step_and_ends_by_itself():
    script = """
        import time
        from mq_jax.devices.interrupt import Interrupt

        with Interrupt() as interrupt:
            print("ready", flush=True)
            while not interrupt.requested:
                time.sleep(0.01)
        print("saved", interrupt.signal_name)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as loop:
        assert loop.stdout.readline() == "ready\n"
        loop.send_signal(signal.SIGTERM)
        output, errors = loop.communicate(timeout=60)
    assert (loop.returncode, output) == (0, "saved SIGTERM\n")
    assert errors.startswith("\nSIGTERM: finishing this step")


def test_a_signal_is_noted_where_nobody_reads_what_is_said_of_it(monkeypatch):
    def gone(descriptor, data):
        raise BrokenPipeError("Broken pipe")

    monkeypatch.setattr(os, "write", gone)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.signal_name == "SIGTERM"
