"""From the command to its first step."""

import os
import subprocess
import sys
import tempfile
import time

from mq_jax.bench.tables import print_by_row


def bench_startup() -> None:
    """Times the command to its first step, with an empty compilation cache and a full one."""
    title = "From the command to the end of the first step (after an evaluation)"
    print_by_row(title, ["compilation cache", "seconds"], _rows())


def _rows():
    """A row for each start."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for name in ("cold", "cached", "cached again"):
            command = [sys.executable, "-m", "mq_jax.main", "--config=configs/photos_mqvae.py"]
            command += [f"--workdir={folder}/{name}", "--config.train.steps=1"]
            yield [name, f"{_seconds_to_line(command, environment, 'step 1/'):.1f}"]


def _seconds_to_line(command, environment, start) -> float:
    """Seconds from a command to the line of its log that starts so."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, **pipes) as process:
        found = next((line for line in process.stderr if line.startswith(start)), None)
        seconds = time.perf_counter() - started
        process.stderr.read()
    if found is None:
        raise RuntimeError(f"{' '.join(command)} printed no line that starts with {start!r}.")
    return seconds
