"""Timings: which part is run, and what the command line refuses."""

import subprocess
import sys

import pytest
import runs

from mq_jax.bench import parts

PARTS = (
    "step",
    "unroll",
    "pieces",
    "lookup",
    "quantizers",
    "input",
    "startup",
    "tokenizer",
    "sampling",
    "checkpoint",
    "peers",
)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_its_timings(monkeypatch, part):
    called = []
    for name in PARTS:
        monkeypatch.setattr(parts, f"bench_{name}", lambda *_, name=name: called.append(name))
    parts.run_part(part, None, rounds=1, straight_through="all", cores=2)
    assert called == [part]


def test_the_first_of_the_cores_are_taken_before_jax_starts(monkeypatch):
    done = []
    monkeypatch.setattr(parts.os, "sched_getaffinity", lambda _: {5, 3, 4}, raising=False)
    monkeypatch.setattr(
        parts.os, "sched_setaffinity", lambda _, own: done.append(own), raising=False
    )
    monkeypatch.setattr(parts, "require_platform", lambda: done.append("started"))
    parts.use_cores(2)
    assert done == [[3, 4], "started"]


@pytest.mark.parametrize(
    "given, message",
    [
        ("extra", "'extra' is no flag; all arguments are flags."),
        ("--config.codebook.size=0", "config.codebook.size is 0; expected a whole number"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(given, message):
    command = [sys.executable, "-m", "mq_jax.bench", given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.ROOT)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
