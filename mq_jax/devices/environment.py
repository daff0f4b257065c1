"""What a run computed with: packages and devices, nothing that tells whose machine it was."""

import importlib.metadata
import os
import platform
from typing import Any

import jax

PACKAGES = ("mq_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment() -> dict[str, Any]:
    """The environment of this process, fit for JSON.

    Returns:
      {"packages": {name: version}, "python": ..., "platform": ..., "devices": {"kind": ...,
      "count": ..., "processes": ...}, "cores": ...}.
    """
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "cores": os.cpu_count(),
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # A checkout on the path is not installed.
        return "not installed"
