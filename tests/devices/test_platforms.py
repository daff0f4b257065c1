"""JAX_PLATFORMS: what is not there is named, with what is."""

import os
import subprocess
import sys

import jax
import pytest

from mq_jax.devices.platforms import require_platform


@pytest.mark.parametrize(
    "platform, error",
    [
        ("nonsense", RuntimeError("Backend 'nonsense' is not in the list of known backends")),
        ("tpu", RuntimeError("Unable to initialize backend")),
        ("cuda", AssertionError()),
    ],
)
def test_a_platform_that_is_not_there_gets_one_line_that_names_the_variable(
    platform, error, monkeypatch
):
    devices, failures = jax.devices, [error]

    def fail_once():
        if failures:
            raise failures.pop()
        return devices()

    monkeypatch.setenv("JAX_PLATFORMS", platform)
    monkeypatch.setattr(jax, "devices", fail_once)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    with pytest.raises(ValueError) as refused:
        require_platform()
    assert str(refused.value) == (
        f"JAX_PLATFORMS is '{platform}', which JAX cannot start here; this machine has cpu. Set "
        "JAX_PLATFORMS to that, or unset it."
    )


def test_another_failure_of_the_backend_is_its_own(monkeypatch):
    def fail():
        raise RuntimeError("out of memory")

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        require_platform()


PROGRAMS = {
    "train": "mq_jax.main --config=configs/photos_mqvae.py --workdir={}/w",
    "evaluate": "mq_jax.main --mode=evaluate --workdir={}/w",
    "export": "mq_jax.main --mode=export --workdir={}/w",
    "tokenize": "mq_jax.tokenize encode --tokenizer={0}/t --input={0} --output={0}/o",
    "bench": "mq_jax.bench",
}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("platform", ["tpu", "cuda", "nonsense"])
def test_every_program_that_computes_says_it_in_one_line_and_makes_nothing(
    program, platform, tmp_path
):
    command = [sys.executable, "-m", *PROGRAMS[program].format(tmp_path).split()]
    environment = os.environ | {"JAX_PLATFORMS": platform}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS is '{platform}'")
    assert list(tmp_path.iterdir()) == []
