"""Where this program keeps what it can make or fetch again."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterator

import jax
from absl import logging

from mq_jax.devices.places import local_path

# JAX's names: a program came out of its compilation cache; one was compiled and written there.
FOUND = "/jax/compilation_cache/cache_hits"
WRITTEN = "/jax/compilation_cache/cache_misses"


def cache_directory() -> pathlib.Path | None:
    """The folder of what this program keeps, which need not exist.

    Returns:
      `mq_jax` in $XDG_CACHE_HOME, by default in ~/.cache; None for a user without a home folder.
    """
    place = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return local_path(place, "XDG_CACHE_HOME") / "mq_jax"
    except ValueError:
        return None


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the environment says where or not to.

    A line of the log says where that cannot be.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX leaves out what compiles within a second: of a start, a dozen small programs.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = cache_directory()
    if directory is not None and _can_be_written(directory):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        return
    place = "there is no home folder" if directory is None else f"{directory} cannot be written to"
    message = "Compiled programs are not kept: %s. JAX_COMPILATION_CACHE_DIR may name a folder"
    logging.info(message, place)


@contextlib.contextmanager
def cache_events() -> Iterator[list[str]]:
    """What JAX tells of its compilation cache in this thread.

    Yields:
      FOUND and WRITTEN as they occur, among others, until the block ends.
    """
    told: list[str] = []
    thread = threading.get_ident()

    def note(event, **_):
        if threading.get_ident() == thread:
            told.append(event)

    jax.monitoring.register_event_listener(note)
    try:
        yield told
    finally:
        jax.monitoring.unregister_event_listener(note)


def _can_be_written(directory: pathlib.Path) -> bool:
    """Whether the folder, or the one that it would be made in, takes files."""
    try:
        there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    except OSError:
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
