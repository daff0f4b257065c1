"""Signals: the first asks, the second insists."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from mq_jax.devices.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError), Interrupt():
        raise RuntimeError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


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
