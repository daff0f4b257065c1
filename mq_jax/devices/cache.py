"""Where this program keeps what it can make or fetch again."""

import os
import pathlib

import jax


def cache_directory() -> pathlib.Path:
    """`mq_jax` in $XDG_CACHE_HOME, by default ~/.cache; it need not exist."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mq_jax"


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the environment says where or not to."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
