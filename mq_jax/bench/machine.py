"""What timings were measured on and with: the environment of a run, and what else decides."""

import contextlib
import importlib.metadata
import os
import pathlib
import subprocess
from typing import Any

import jax

from mq_jax.devices.environment import environment

# What changes how fast the same program is.
_VARIABLES = (
    *("XLA_FLAGS", "JAX_PLATFORMS", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_ENABLE_X64"),
    *("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION"),
    *("NVIDIA_TF32_OVERRIDE", "MALLOC_ARENA_MAX"),
)
# Of the distributions that a GPU's kernels come out of.
_LIBRARIES = ("jax-cuda", "jax_cuda", "nvidia-", "nvidia_")
_ROOT = pathlib.Path(__file__).parents[2]


def machine() -> dict[str, Any]:
    """What this process computes with, fit for JSON.

    Returns:
      devices.environment's, and {"platform_version": JAX's words, of a GPU with its CUDA's,
      "driver": of NVIDIA or None, "libraries": {name: version}, "variables": {name: value},
      "commit": of this checkout or None, "changed": whether its files differ from that}.
    """
    device = jax.devices()[0]
    changes = _said("git", "-C", str(_ROOT), "status", "--porcelain", "--untracked-files=no")
    # An installed package may lie inside the repository of something else.
    ours = (_ROOT / ".git").exists()
    query = ("--query-gpu=driver_version", "--format=csv,noheader")
    driver = _said("nvidia-smi", *query) if device.platform == "gpu" else None
    return environment() | {
        "platform_version": device.client.platform_version,
        "driver": driver.splitlines()[0] if driver else None,
        "libraries": _libraries(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "commit": _said("git", "-C", str(_ROOT), "rev-parse", "HEAD") if ours else None,
        "changed": bool(changes) if ours else None,
    }


def _libraries():
    found = importlib.metadata.distributions()
    names = {each.metadata["Name"]: each.version for each in found}
    return {name: names[name] for name in sorted(names) if name.startswith(_LIBRARIES)}


def _said(*command):
    """What a program prints; None where it is not there, fails or hangs."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    return None
