"""The timings of one GPU, launch/bench_gpu.sh, without one: what it leaves whatever happens."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import types

import pytest
import runs

from mq_jax import commandline
from mq_jax.bench.names import PARTS
from mq_jax.bench.parts import kinds_named
from mq_jax.training.validate import validate

SCRIPT = runs.ROOT / "launch" / "bench_gpu.sh"

# A part writes its rows where it is asked to; some fail, or hang once they have measured one. What
# it is given as -c is the question which platform JAX has.
_BENCH = """#!/usr/bin/env bash
if [ "$1" = -c ]; then
    echo "${PLATFORM:-gpu}"
    exit
fi
for word in "$@"; do
    case $word in
    --part=lookup) exit 3 ;;
    --output=*) output=${word#--output=} ;;
    esac
done
echo "{\\"part\\": \\"$3\\", \\"platforms\\": \\"${JAX_PLATFORMS:-}\\", \\"rows\\": [1]}" >"$output"
if [ "$3" = "--part=${HANGS:-}" ]; then
    sleep 60 &
    echo $! >"$CHILD"
    wait
fi
echo "table of $3"
"""


@pytest.fixture
def bench(tmp_path):
    """The timings of one GPU, of parts that take no time, and what they leave."""
    python = tmp_path / "python"
    python.write_text(_BENCH)
    python.chmod(0o755)
    given = {"PATH": os.environ["PATH"], "PYTHON": str(python), "CORES": "1"}
    given["CHILD"] = str(tmp_path / "child")
    command = ["bash", SCRIPT, tmp_path / "out"]

    def start(**environment):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **pipes, cwd=runs.ROOT, env=given | environment)

    def left():
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            *("bench.json", "bench.txt", "bench.log")
        }
        return json.loads((tmp_path / "out" / "bench.json").read_text())

    return types.SimpleNamespace(start=start, left=left, child=tmp_path / "child")


def ends(pid):
    """Whether a process has ended soon; by itself it would take a minute."""
    status = pathlib.Path(f"/proc/{pid}/stat")
    for _ in range(300):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if status.read_text().rpartition(")")[2].split()[0] != "Z":
                # Killed, it is still there until the system comes to it.
                time.sleep(0.1)
                continue
        return True
    return False


def test_one_gpu_is_timed_part_by_part_whatever_becomes_of_one(bench, tmp_path):
    # The part that hangs is ended at the deadline, and what follows it is not begun.
    done = bench.start(HANGS="sampling", DEADLINE="12")
    told, _ = done.communicate(timeout=60)
    assert done.returncode == 1 and "7 of 11 parts" in told.splitlines()[-1]
    parts = bench.left()
    ended = ["done"] * 3 + ["code 3"] + ["done"] * 4 + ["over its limit"] + ["not begun"] * 2
    assert [part["ended"] for part in parts] == ended
    assert parts[3]["result"] is None and parts[9]["result"] is None
    assert parts[0]["result"]["part"] == "--part=step"
    # A part whose GPU fails must not time the CPU.
    assert parts[0]["result"]["platforms"] == "cuda,cpu"
    # Its rows until then are there, and what it started is gone.
    assert parts[8]["arguments"].startswith("--part=sampling")
    assert parts[8]["result"]["rows"] == [1]
    assert ends(bench.child.read_text().strip())
    table = (tmp_path / "out" / "bench.txt").read_text()
    assert "table of --part=pieces" in table and "over its limit: bench.json has" in table


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_what_was_measured(number, code, bench):
    started = bench.start(HANGS="pieces")
    # The line that tells of the part comes before it, the child's number once it hangs.
    while not (bench.child.exists() and bench.child.read_text()):
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(number)
    started.communicate(timeout=30)
    assert started.returncode == code
    assert [part["ended"] for part in bench.left()] == ["done", "done", "interrupted"]
    assert bench.left()[2]["result"]["rows"] == [1]
    assert ends(bench.child.read_text().strip())


def test_without_a_gpu_nothing_is_timed_unless_a_cpu_is_allowed(bench, tmp_path):
    done = bench.start(PLATFORM="cpu")
    told, errors = done.communicate(timeout=60)
    assert (done.returncode, told) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: JAX computes on 'cpu' here; expected a GPU")
    assert not (tmp_path / "out" / "bench.json").exists()
    done = bench.start(PLATFORM="cpu", ALLOW_CPU="1")
    done.communicate(timeout=60)
    assert {part["ended"] for part in bench.left()} == {"done", "code 3"}
    assert bench.left()[0]["result"]["platforms"] == ""


def test_the_parts_that_are_timed_on_a_gpu_are_all_there_are_and_fit_the_deadline():
    text = SCRIPT.read_text().replace("\\\n", "")
    timed = re.findall(r"^time_part (\d+) --part=(\w+)", text, re.MULTILINE)
    # Two are of CPUs, the one beside a library that need not be there; the third of a run, and
    # times nothing.
    assert {part for _, part in timed} == set(PARTS) - {"peers", "operations", "hypergradients"}
    deadline = int(re.search(r"DEADLINE:-(\d+)", text)[1])
    # What asking for the platform takes comes before them.
    assert sum(int(limit) for limit, _ in timed) <= deadline - 10 and deadline < 480


def test_the_parts_that_are_timed_on_a_gpu_are_asked_for_as_the_program_takes_it():
    text = SCRIPT.read_text().replace("\\\n", "")
    for line in re.findall(r"^time_part \d+ (.*)", text, re.MULTILINE):
        given = dict(word.lstrip("-").split("=") for word in line.split())
        assert int(given.pop("rounds", 1)) > 0
        config = commandline.configured(
            ["bench", f"--config={given.get('config', 'configs/cifar10_mqvae.py')}"]
        )
        validate(config)
        estimator = given.get("straight_through", "all")
        kinds = kinds_named(given.get("kinds", ""), given["part"], config, estimator)
        assert ("kinds" in given) == bool(kinds)
