"""What timings are told to have been measured on."""

import subprocess
import types

import jax
import runs

from mq_jax.bench import machine


def test_the_facts_name_the_commit_and_what_the_environment_asks_of_xla(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0")
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    facts = machine.machine()
    command = ["git", "-C", runs.ROOT, "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert facts["commit"] == (done.stdout.strip() or None)
    assert facts["variables"]["XLA_FLAGS"] == "--xla_gpu_autotune_level=0"
    assert "JAX_ENABLE_X64" not in facts["variables"] and facts["driver"] is None
    assert facts["platform_version"] == jax.devices()[0].client.platform_version
    assert facts["devices"]["kind"] == "cpu"


def test_the_driver_of_a_gpu_is_told_and_what_is_not_there_is_none(monkeypatch, tmp_path):
    said = {"nvidia-smi": "570.1\n570.1"}
    monkeypatch.setattr(machine, "_said", lambda *command: said.get(command[0]))
    monkeypatch.setattr(machine, "environment", dict)
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    device = types.SimpleNamespace(
        platform="gpu", client=types.SimpleNamespace(platform_version="cuda 12090")
    )
    monkeypatch.setattr(machine.jax, "devices", lambda: [device])
    facts = machine.machine()
    assert facts["driver"] == "570.1" and facts["platform_version"] == "cuda 12090"
    # Installed, or unpacked from an archive.
    assert facts["commit"] is None and facts["changed"] is None


def test_a_program_that_is_not_there_says_nothing():
    assert machine._said("no-such-program-anywhere") is None
    assert machine._said("git", "no-such-command") is None
