"""Flags under which XLA repeats its results on GPUs, set before a backend reads them."""

import os
from collections.abc import MutableMapping

from absl import logging

# The first forbids kernels that add in any order; the second the choice of one by its speed.
FLAGS = {"xla_gpu_deterministic_ops": "true", "xla_gpu_autotune_level": "0"}
_ALSO = {"xla_gpu_deterministic_ops": ("1", "True"), "xla_gpu_autotune_level": ()}


def ask_for_determinism(environment: MutableMapping[str, str] = os.environ) -> None:
    """Adds the flags to XLA_FLAGS; what a person has set there stays, and a line tells of it.

    Args:
      environment: as os.environ; changed. XLA reads it when JAX's first backend starts.
    """
    given = environment.get("XLA_FLAGS", "").strip()
    if given and not given.startswith("-"):
        wanted = " ".join(_spelled(FLAGS))
        message = (
            "XLA_FLAGS names a file, %s, which stays as it is: for config.deterministic, add %s"
        )
        logging.warning(message, given, wanted)
        return
    set_already = {
        name.lstrip("-"): value if equals else "true"
        for name, equals, value in (flag.partition("=") for flag in given.split())
    }
    for name, value in FLAGS.items():
        if set_already.get(name, value) not in (value, *_ALSO[name]):
            message = "XLA_FLAGS has --%s=%s, which wins over config.deterministic's %s"
            logging.warning(message, name, set_already[name], value)
    missing = {name: value for name, value in FLAGS.items() if name not in set_already}
    environment["XLA_FLAGS"] = " ".join(filter(None, [given, *_spelled(missing)]))


def _spelled(flags):
    return [f"--{name}={value}" for name, value in flags.items()]
