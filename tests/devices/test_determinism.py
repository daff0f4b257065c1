"""XLA's flags for repeatable results: set in time, and never over those of a person."""

import json
import os
import re
import subprocess
import sys

import jax
import pytest
import runs

from mq_jax.devices.determinism import FLAGS, ask_for_determinism
from mq_jax.modes import dispatch

ASKED = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


@pytest.mark.parametrize(
    ("given", "expected", "told"),
    [
        (None, ASKED, []),
        ("", ASKED, []),
        ("--xla_cpu_a=1 --xla_b", f"--xla_cpu_a=1 --xla_b {ASKED}", []),
        (ASKED, ASKED, []),
        (
            "--xla_gpu_deterministic_ops",
            "--xla_gpu_deterministic_ops --xla_gpu_autotune_level=0",
            [],
        ),
        (
            "--xla_gpu_deterministic_ops=1 --xla_gpu_autotune_level=0",
            "--xla_gpu_deterministic_ops=1 --xla_gpu_autotune_level=0",
            [],
        ),
        (
            "--xla_gpu_autotune_level=4",
            "--xla_gpu_autotune_level=4 --xla_gpu_deterministic_ops=true",
            ["XLA_FLAGS has --xla_gpu_autotune_level=4, which wins"],
        ),
        (
            "--xla_gpu_deterministic_ops=false",
            "--xla_gpu_deterministic_ops=false --xla_gpu_autotune_level=0",
            ["XLA_FLAGS has --xla_gpu_deterministic_ops=false, which wins"],
        ),
        ("/etc/flags", "/etc/flags", [f"XLA_FLAGS names a file, /etc/flags, .* add {ASKED}"]),
    ],
)
def test_flags_are_added_and_those_of_a_person_stay(given, expected, told, caplog):
    environment = {} if given is None else {"XLA_FLAGS": given}
    ask_for_determinism(environment)
    assert environment == {"XLA_FLAGS": expected}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(told)
    for message, pattern in zip(messages, told, strict=True):
        assert re.match(pattern, message)


def test_xla_knows_the_flags():
    """It ends a process that has one which it does not know."""
    code = "import jax; print(jax.devices()[0].platform)"
    environment = {**os.environ, "XLA_FLAGS": ASKED}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "cpu\n"), done.stderr
    assert ASKED == " ".join(f"--{name}={value}" for name, value in FLAGS.items())


@pytest.fixture
def flags_at_start(monkeypatch):
    """XLA_FLAGS when the program joins the others, after which backends may start."""
    # A backend that started with a flag that it does not know would end the tests.
    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    seen = []
    monkeypatch.setattr(dispatch, "_join", lambda: seen.append(os.environ["XLA_FLAGS"]))
    return seen


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_the_flags_of_a_given_configuration_are_there_before_any_backend(flags_at_start, mode):
    outcome = runs.cli(f"--mode={mode}", *runs.arguments(deterministic=True))
    assert outcome.code == 1 and "--workdir is missing" in outcome.err
    assert flags_at_start == [f"--xla_mine=1 {ASKED}"]


@pytest.mark.parametrize("mode", ["evaluate", "export"])
def test_the_flags_of_a_run_are_there_before_any_backend(flags_at_start, mode, tmp_path):
    config = {**runs.configure(deterministic=True).to_dict(), "seed": -1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    outcome = runs.cli(f"--mode={mode}", f"--workdir={tmp_path}")
    assert outcome.code == 1 and "config.seed is -1" in outcome.err
    assert flags_at_start == [f"--xla_mine=1 {ASKED}"]


def test_no_flag_is_set_unasked_and_a_wrong_command_line_is_told_after_joining(flags_at_start):
    outcome = runs.cli(*runs.arguments())
    assert outcome.code == 1 and "--workdir is missing" in outcome.err
    outcome = runs.cli("--config=nowhere.py", "--workdir=w")
    assert outcome.code == 1 and "there is no such file" in outcome.err
    assert flags_at_start == ["--xla_mine=1"] * 2
