"""The StableHLO programs of an export: making them, their signature, reading with it checked."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export

from mq_jax.runs.orbax_noise import one_line
from mq_jax.storage.files import read_bytes

PLATFORMS = ("cpu", "cuda")

# Of one file; a tokenizer's has its weights inside.
MOST_BYTES = 2**34

_SUFFIX = ".stablehlo"
# What MLIR's binary form begins with, somewhere in the first bytes of a serialized program.
_MLIR = b"ML\xefR"
_MARK = b"\nmq_jax "


def exported(function: Callable, *arguments: Any) -> jax.export.Exported:
    """A function as a program for PLATFORMS.

    Args:
      function: pure.
      arguments: trees of jax.ShapeDtypeStruct, some of whose sides may be symbols.

    Returns:
      The program, which names source files without the folders of this machine.
    """
    setting = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, setting)
    jax.config.update(setting, ".*/")
    try:
        return jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    finally:
        jax.config.update(setting, before)


def write_programs(
    folder: pathlib.Path, programs: Mapping[str, jax.export.Exported], fingerprint: str
) -> None:
    """Writes programs with their signatures.

    Args:
      folder: of the export.
      programs: by name of file.
      fingerprint: of the export.

    Raises:
      OSError: they cannot be written.
    """
    for name, program in programs.items():
        (folder / name).write_bytes(sign(bytes(program.serialize()), fingerprint))


def sign(program: bytes, fingerprint: str) -> bytes:
    """A program with its model's fingerprint and the sha256 of both behind it.

    Flatbuffers, which jax.export writes, end before: whoever does not check reads it as it is.

    Args:
      program: as jax.export serializes it.
      fingerprint: of the export.

    Returns:
      The content of the file.
    """
    signed = program + _MARK + fingerprint.encode()
    return signed + b" " + hashlib.sha256(signed).hexdigest().encode()


def read_program(path: str | os.PathLike, fingerprint: str = "") -> jax.export.Exported:
    """Reads a program of an export, which `call` runs; it is code: run that of whom you trust.

    Args:
      path: of the file, NAME.stablehlo.
      fingerprint: of the model that it must be of; "": of any.

    Returns:
      What jax.export.deserialize makes of it.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged, without a signature, or of another model.
    """
    try:
        data = read_bytes(path, MOST_BYTES)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    signed, _, sha256 = data.rpartition(b" ")
    program, mark, found = signed.rpartition(_MARK)
    if not mark or hashlib.sha256(signed).hexdigest().encode() != sha256:
        raise ValueError(
            f"{path} is damaged, or was exported before programs carried a fingerprint; export the "
            "model again, or copy the whole file again."
        )
    if fingerprint and found.decode() != fingerprint:
        raise ValueError(
            f"{path} is of the model {found.decode()[:16]}...; expected {fingerprint[:16]}...."
        )
    try:
        return jax.export.deserialize(bytearray(program))
    # A program of another version of JAX; the file is whole.
    except Exception as error:
        raise ValueError(
            f"{path} is no program that this JAX reads ({one_line(error)}); export the model again."
        ) from error


def is_program(path: pathlib.Path) -> bool:
    """Whether a file is a StableHLO program, by its name or by its beginning.

    Args:
      path: of a regular file.

    Returns:
      True for one, signed or not.
    """
    if path.suffix == _SUFFIX:
        return True
    with open(path, "rb") as file:
        return _MLIR in file.read(2**12)
