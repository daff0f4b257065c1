"""The lock of a folder: one process at a time, named to the others, gone with its process."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from mq_jax.storage import lock
from mq_jax.storage.joint_lock import held_together
from mq_jax.storage.lock import FILE, held

HOLDER = """
import pathlib, sys, time
from mq_jax.storage.lock import held
with held(pathlib.Path(sys.argv[1]), "go"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_once_at_a_time_and_left_as_it_was(tmp_path):
    with held(tmp_path, "give another --output"):
        with pytest.raises(ValueError) as error, held(tmp_path, "give another --output"):
            pass
        who = json.loads((tmp_path / FILE).read_text())
    message = str(error.value)
    assert f"({os.getpid()} on {socket.gethostname()}, since {who['since']}: " in message
    assert sys.argv[0] in message and f"writes into {tmp_path}; wait until it ends" in message
    assert message.endswith("or give another --output.") and "\n" not in message
    assert list(tmp_path.iterdir()) == []
    with held_together(tmp_path, "wait"):
        assert (tmp_path / FILE).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_does_not_block_and_is_named_while_it_lives(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"\({holder.pid} on "), held(tmp_path, "wait"):
            pass
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / FILE).exists()
    with held(tmp_path, "wait"):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_come_and_go_one_alone_is_inside(tmp_path):
    inside, most, entered = [], [], []

    def come_and_go():
        for _ in range(30):
            try:
                with held(tmp_path, "wait"):
                    inside.append(0)
                    most.append(len(inside))
                    inside.pop()
                    entered.append(0)
            except ValueError:
                continue

    threads = [threading.Thread(target=come_and_go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered and set(most) == {1} and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 3}', "\xff"])
def test_a_holder_that_has_not_told_its_name_yet_keeps_others_out(tmp_path, content):
    with held(tmp_path, "wait"):
        (tmp_path / FILE).write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match="Another process writes into"), held(tmp_path, "wait"):
            pass


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with held(tmp_path, "wait"):
        assert "without locks" in caplog.text


def test_what_killed_processes_left_goes_and_what_they_had_moved_aside_returns(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".metrics.jsonl.12.tmp").write_text("")
    for name in (".export.7.tmp", ".export.7.old", ".report.html.9.old", "export"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    kept = {".other.tmp", ".hidden", "x.1.tmp", "deep"}
    for name in kept - {"deep"}:
        (tmp_path / name).write_text("")
    with held(tmp_path, "wait"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "export", "report.html"}
    assert list((tmp_path / "deep").iterdir()) == []
    assert (tmp_path / "export" / "file").read_text() == "export"
    assert (tmp_path / "report.html" / "file").read_text() == ".report.html.9.old"
