"""Compiled steps in a folder, which a later start of the same run need not trace.

JAX's compilation cache saves the compilation of what was traced; of a start that finds all in
there, the trace of the step is the longest part. A start names all that decides what is traced; a
program is named by what was traced, so that starts which trace the same share it.
"""

import functools
import hashlib
import json
import os
import pathlib
import platform
import stat
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import msgpack
from absl import logging
from jax.experimental import serialize_executable
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mq_jax.devices.places import local_path
from mq_jax.devices.reading import open_regular
from mq_jax.devices.sources import noted_sources
from mq_jax.storage.files import replacing

# What a file of another layout must not be read as.
_LAYOUT = 1

# Of all files; the ones that were not used for longest go first.
_MOST_BYTES = 2**30

# Modules of what takes part in a trace.
_LIBRARIES = "jax", "jaxlib", "flax", "optax", "clu", "ml_collections", "numpy"


class Place(NamedTuple):
    """Where the steps of a run are kept.

    Attributes:
      folder: of all that is kept, a file for each start and each program, named by its digest;
        need not be there.
      start: a digest of all that decides what is traced.
      machine: a digest of all that decides, beside what is traced, how it is compiled.
    """

    folder: pathlib.Path
    start: str
    machine: str


class Step(NamedTuple):
    """A step that was compiled.

    Attributes:
      lowered: before that.
      compiled: ready to run.
      is_fresh: whether XLA compiled it for this start: what comes out of JAX's cache has no machine
        code that could be written once more.
    """

    lowered: jax.stages.Lowered
    compiled: jax.stages.Compiled
    is_fresh: bool


def place_of(config: ConfigDict, mesh: Mesh, *facts: Any) -> Place | None:
    """The place of a run's compiled steps, beside JAX's compilation cache.

    Its digests tell this program's sources, the configuration, the devices, the versions and
    settings of the libraries; not what somebody edits in an installed library.

    Args:
      config: validated.
      mesh: of its devices.
      facts: what else the steps are built from, as JSON or with a repr that tells it: the number
        of steps, of a prior the space of its tokens.

    Returns:
      A Place; None where JAX keeps nothing, for several processes, and where it is not known which
      sources run.
    """
    folder, sources = _cache_folder(), noted_sources()
    if folder is None or not sources:
        return None
    devices = list(mesh.devices.flat)
    compiler = {
        "mesh": [dict(mesh.shape), [device.id for device in devices], jax.device_count()],
        "devices": [devices[0].client.platform_version, *(each.device_kind for each in devices)],
        "processor": _processor(),
        "libraries": [sys.version, *_installed()],
        "settings": [jax.config.values, _environment()],
    }
    machine = _digest(compiler)
    decisive = {"sources": sources, "config": config.to_dict(), "facts": facts}
    return Place(folder / "steps", _digest([machine, decisive]), machine)


class KeptStep:
    """A compiled step as bytes, in the place of a lowered one.

    Args:
      file: of the bytes; removed where they cannot be loaded.
      payload: the bytes, of serialize_executable.serialize.
      trees: structures of what the step takes, ((state, window, *given), {}), and returns.
      mesh: of its devices.
      lower: traces the same step, for bytes that cannot be loaded.
    """

    def __init__(
        self,
        file: pathlib.Path,
        payload: bytes,
        trees: Sequence[Any],
        mesh: Mesh,
        lower: Callable[[], jax.stages.Lowered],
    ):
        self._file, self._payload, self._trees, self._lower = file, payload, trees, lower
        self._devices = list(mesh.devices.flat)

    def compile(self) -> jax.stages.Compiled:
        """The step, ready to run."""
        load = functools.partial(
            serialize_executable.deserialize_and_load, execution_devices=self._devices
        )
        try:
            return load(self._payload, *self._trees)
        except Exception as error:
            # JAX, its unpickler and XLA have no error in common for bytes that do not fit.
            logging.info("The step that an earlier start kept cannot be loaded: %s", error)
            self._file.unlink(missing_ok=True)
            return self._lower().compile()


def read(
    place: Place,
) -> tuple[dict[str, jax.ShapeDtypeStruct], list[tuple[pathlib.Path, bytes]]] | None:
    """What an earlier start kept.

    Args:
      place: from place_of.

    Returns:
      (shapes and dtypes of the step's metrics by name, file and payload of each step); None where
      there is nothing of this user alone: whoever can write a program decides what it does.
    """
    try:
        layout, metrics, digests = msgpack.unpackb(_read(place.folder / place.start))
        if layout != _LAYOUT:
            return None
        files = [place.folder / digest for digest in digests]
        described = {
            name: jax.ShapeDtypeStruct(tuple(shape), dtype)
            for name, (shape, dtype) in metrics.items()
        }
        return described, [(file, _read(file)) for file in files]
    except (FileNotFoundError, PermissionError):
        return None
    except (OSError, ValueError, TypeError, zlib.error, msgpack.UnpackException) as error:
        logging.info("The steps that an earlier start kept cannot be read: %s", error)
        return None


def keep(place: Place, metrics: Mapping[str, jax.ShapeDtypeStruct], steps: Sequence[Step]) -> None:
    """Writes what `read` reads; a line of the log says where that cannot be.

    Args:
      place: from place_of.
      metrics: shapes and dtypes of the step's metrics, by name.
      steps: compiled.
    """
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        digests = []
        for step in steps:
            digests.append(_digest([place.machine, step.lowered.as_text()]))
            file = place.folder / digests[-1]
            if step.is_fresh:
                _write(file, serialize_executable.serialize(step.compiled)[0])
            elif not file.exists():
                return
        described = {name: (leaf.shape, leaf.dtype.name) for name, leaf in metrics.items()}
        # What was edited meanwhile would be taken for what was traced.
        if noted_sources():
            _write(place.folder / place.start, msgpack.packb((_LAYOUT, described, digests)))
        _make_room(place.folder)
    except (OSError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        logging.info("The compiled steps are not kept for the next start: %s", error)


def _read(file):
    """The content of a file that nobody else could have written, marked as used."""
    with open_regular(file) as opened:
        status = os.fstat(opened.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{file} is not of this user alone")
        content = zlib.decompress(opened.read())
    os.utime(file)
    return content


def _write(file, content):
    with replacing(file) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(zlib.compress(content, level=1))


def _make_room(folder):
    """Removes the files that were not used for longest, also those of killed processes."""
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir()]
    left = _MOST_BYTES
    for _, size, path in sorted(files, reverse=True):
        left -= size
        if left < 0:
            path.unlink(missing_ok=True)


def _digest(decisive):
    text = json.dumps(decisive, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _cache_folder():
    """Where JAX keeps compiled programs on this machine; None: nowhere."""
    folder = jax.config.jax_compilation_cache_dir
    if not folder or not jax.config.jax_enable_compilation_cache or jax.process_count() > 1:
        return None
    if os.environ.get("XLA_FLAGS", "--").strip()[:2] != "--":
        # The name of a file, whose content decides.
        return None
    try:
        return local_path(folder, "JAX_COMPILATION_CACHE_DIR")
    except ValueError:
        return None


def _installed():
    """Names and versions of the libraries in the order of Python's search, and where some lie."""
    found = [str(sys.modules[name].__file__) for name in _LIBRARIES if name in sys.modules]
    for place in sys.path:
        try:
            found += sorted(name for name in os.listdir(place) if name.endswith(".dist-info"))
        except OSError:
            # What cannot be listed, such as an archive, has none.
            found.append(place)
    return found


def _processor():
    """What XLA may compile for: another machine that shares the folder may lack instructions."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [*platform.uname()]
    return sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})


def _environment():
    """What the environment tells JAX and XLA."""
    names = "JAX_", "XLA_", "LIBTPU_"
    return sorted(item for item in os.environ.items() if item[0].startswith(names))
