"""Writing an export: all formats into a folder beside, which then takes its name at once."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import orbax.checkpoint as ocp
import safetensors.numpy

from mq_jax.runs import orbax_noise
from mq_jax.storage.plain_path import plain_path
from mq_jax.tokenizers.architecture import quantizer_of
from mq_jax.tokenizers.export import Export, coding_of, downsampling, named
from mq_jax.tokenizers.export_card import card_of, page_of
from mq_jax.tokenizers.export_reading import HEADER_KEY, ORBAX, SAFETENSORS, read_export
from mq_jax.tokenizers.programs import sign

PLATFORMS = ("cpu", "cuda")


def write_export(
    folder: str | os.PathLike,
    export: Export,
    facts: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes every format, the model card included.

    Args:
      folder: `export` of a run, by custom; appears whole or not at all.
      export: the model.
      facts: for the card: "training", "evaluation" (or None) and "environment".
      overwrite: whether an export of another model that is there may go.

    Returns:
      The folder.

    Raises:
      ValueError: the folder is there and holds another model, or something else.
      OSError: it cannot be written.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not overwrite:
        _require_same(folder, export)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    # Of a killed process of the same number, as containers have them.
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        _write_safetensors(temporary / SAFETENSORS, export)
        _write_orbax(temporary / ORBAX, export)
        for name, exported in stablehlo(export).items():
            data = sign(bytes(exported.serialize()), export.fingerprint)
            (temporary / name).write_bytes(data)
        card = card_of(export, facts, _inventory(temporary))
        (temporary / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(
            page_of(card), encoding="utf-8", errors="backslashreplace"
        )
        _give_name(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def stablehlo(export: Export) -> dict[str, jax.export.Exported]:
    """Both directions as programs of their own, weights inside, for any batch and size.

    Args:
      export: the model.

    Returns:
      {"encode.stablehlo": u8[b, f h, f w, 3] -> i32[b, h, w], "decode.stablehlo":
      i32[b, h, w] -> u8[b, f h, f w, 3]}, f the downsampling, for PLATFORMS; i32[b, h, w, J]
      where a position has J codes.
    """
    coding, factor = coding_of(export), downsampling(export)
    b, h, w = jax.export.symbolic_shape("b, h, w", constraints=["b >= 1", "h >= 1", "w >= 1"])
    images = jax.ShapeDtypeStruct((b, factor * h, factor * w, 3), jnp.uint8)
    depth = quantizer_of(export.architecture).depth
    indices = jax.ShapeDtypeStruct((b, h, w, depth) if depth else (b, h, w), jnp.int32)
    weights = jax.tree.map(jnp.asarray, export.weights)
    with _without_folders():
        return {
            name: jax.export.export(jax.jit(function), platforms=PLATFORMS)(argument)
            for name, function, argument in (
                ("encode.stablehlo", lambda x: coding.encode(weights, x), images),
                ("decode.stablehlo", lambda x: coding.decode(weights, x), indices),
            )
        }


@contextlib.contextmanager
def _without_folders():
    """Programs name the source file of each operation: its name alone, not this machine's path."""
    setting = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, setting)
    jax.config.update(setting, ".*/")
    try:
        yield
    finally:
        jax.config.update(setting, before)


def _give_name(temporary, folder):
    """The folder's name for the new export; what had it goes last, or gets it back."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    had_one = folder.exists()
    if had_one:
        folder.rename(old)
    try:
        temporary.rename(folder)
    except BaseException:
        if had_one:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _require_same(folder, export):
    """An export of the same model may be written again; nothing else is lost unasked."""
    try:
        found = read_export(folder).fingerprint
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} exists and holds no whole export ({error}). Move it away, or replace it: "
            "--overwrite."
        ) from error
    if found != export.fingerprint:
        raise ValueError(
            f"{folder} holds another model, of fingerprint {found[:16]}... (this one: "
            f"{export.fingerprint[:16]}...). Move it away, or replace it: --overwrite."
        )


def _write_safetensors(path, export):
    metadata = {HEADER_KEY: json.dumps(export.header)}
    # save_file would make a file that only its owner may read.
    path.write_bytes(safetensors.numpy.save(named(export.weights), metadata=metadata))


def _write_orbax(path, export):
    """One flat dict of arrays, whose names are free of slashes, and the header beside."""
    orbax_noise.silence()
    arrays = {name.replace("/", "."): array for name, array in named(export.weights).items()}
    items = {
        "weights": ocp.args.StandardSave(arrays),
        "header": ocp.args.JsonSave(export.header),
    }
    checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    with plain_path(path.parent) as place, checkpointer:
        checkpointer.save(place / path.name, args=ocp.args.Composite(**items))
    # Orbax notes in them where the checkpoint lay when it was written.
    for note in path.rglob("commit_success.txt"):
        note.write_text("Checkpoint commit was successful\n", encoding="utf-8")


def _inventory(folder):
    """Bytes and sha256 of every file, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
