"""Writing an export: all formats into a folder beside, which then takes its name at once."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mq_jax.runs import orbax_noise
from mq_jax.storage.plain_path import plain_path
from mq_jax.tokenizers.architecture import quantizer_of
from mq_jax.tokenizers.export import Export, coding_of, downsampling, named
from mq_jax.tokenizers.export_card import card_of, page_of
from mq_jax.tokenizers.export_folder import appearing, inventory, write_card
from mq_jax.tokenizers.export_reading import ORBAX, SAFETENSORS, read_export
from mq_jax.tokenizers.programs import exported, write_programs
from mq_jax.tokenizers.tensors import write_tensors


class Format(NamedTuple):
    """A further form of an export, which other programs load.

    Attributes:
      name: of the form.
      place: name of its file or folder in that of the export.
      problem: (architecture) -> what of it the form cannot hold; None where it holds all.
      write: (place, export) -> None; the place does not exist.
      reading: (architecture) -> how it is loaded, for the card, as Markdown.
    """

    name: str
    place: str
    problem: Callable[[Mapping[str, Any]], str | None]
    write: Callable[[pathlib.Path, Export], None]
    reading: Callable[[Mapping[str, Any]], str]


def write_export(
    folder: str | os.PathLike,
    export: Export,
    facts: Mapping[str, Any],
    *,
    overwrite: bool = False,
    formats: Sequence[Format] = (),
) -> pathlib.Path:
    """Writes every format, the model card included.

    Args:
      folder: `export` of a run, by custom; appears whole or not at all.
      export: the model.
      facts: for the card: "training", "evaluation" (or None) and "environment".
      overwrite: whether an export of another model that is there may go.
      formats: further ones, which hold the model.

    Returns:
      The folder.

    Raises:
      ValueError: the folder is there and holds another model, or something else.
      OSError: it cannot be written.
    """
    folder = pathlib.Path(folder)
    with appearing(folder, export.fingerprint, read_export, overwrite=overwrite) as place:
        write_tensors(place / SAFETENSORS, "tokenizer", export.header, named(export.weights))
        _write_orbax(place / ORBAX, export)
        write_programs(place, stablehlo(export), export.fingerprint)
        for further in formats:
            further.write(place / further.place, export)
        card = card_of(export, facts, inventory(place))
        readings = [further.reading(export.architecture) for further in formats]
        write_card(place, card, page_of(card, readings))
    return folder


def stablehlo(export: Export) -> dict[str, jax.export.Exported]:
    """Both directions as programs of their own, weights inside, for any batch and size.

    Args:
      export: the model.

    Returns:
      {"encode.stablehlo": u8[b, f h, f w, 3] -> i32[b, h, w], "decode.stablehlo":
      i32[b, h, w] -> u8[b, f h, f w, 3]}, f the downsampling; i32[b, h, w, J] where a
      position has J codes.
    """
    coding, factor = coding_of(export), downsampling(export)
    b, h, w = jax.export.symbolic_shape("b, h, w", constraints=["b >= 1", "h >= 1", "w >= 1"])
    images = jax.ShapeDtypeStruct((b, factor * h, factor * w, 3), jnp.uint8)
    depth = quantizer_of(export.architecture).depth
    indices = jax.ShapeDtypeStruct((b, h, w, depth) if depth else (b, h, w), jnp.int32)
    weights = jax.tree.map(jnp.asarray, export.weights)
    return {
        "encode.stablehlo": exported(lambda x: coding.encode(weights, x), images),
        "decode.stablehlo": exported(lambda x: coding.decode(weights, x), indices),
    }


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
