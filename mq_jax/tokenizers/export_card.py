"""The model card: what an export is, where it comes from, how it is read."""

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from ml_collections import ConfigDict

from mq_jax.runs.workdir import flat
from mq_jax.tokenizers.architecture import quantizer_in_words, quantizer_of
from mq_jax.tokenizers.export import Export, downsampling, named

# Paths of the machine that trained, of either stage; they tell whose it was.
_PATHS = ("data.dir", "perceptual.dir", "codebook.base_file", "init_from", "tokens", "eval_tokens")


def training_facts(config: ConfigDict, step: int) -> dict[str, Any]:
    """What a card says of the training.

    Args:
      config: of the run, of either stage.
      step: of the checkpoint.

    Returns:
      {"source", "split", "step", "config"}, the configuration without its paths.
    """
    fields, told = config.to_dict(), config.copy_and_resolve_references()
    own = [path for path in _PATHS if path in flat(fields)]
    told.update_from_flattened_dict(dict.fromkeys(own, ""))
    source, split = config.data.source, config.data.train_split
    return {"source": source, "split": split, "step": step, "config": told.to_dict()}


def card_of(
    export: Export, facts: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The card, fit for JSON.

    Args:
      export: the model.
      facts: "training", "evaluation" (or None), "environment".
      files: bytes and sha256 by path.

    Returns:
      A nested dict.
    """
    arrays = named(export.weights)

    def parameters(prefix):
        return sum(math.prod(a.shape) for name, a in arrays.items() if name.startswith(prefix))

    return {
        "version": export.header["version"],
        "fingerprint": export.fingerprint,
        "tokenizer": {
            "kind": export.architecture["model"]["kind"],
            **_codes(export.architecture, arrays),
            "downsampling": downsampling(export),
            "trained_at": export.architecture["data"]["image_size"],
            "preparation": export.preparation,
            "parameters": {
                "encoder": parameters("theta/encoder/"),
                "decoder": parameters("theta/decoder/"),
                "codebook": parameters("codebook"),
            },
        },
        "training": facts["training"],
        "evaluation": facts["evaluation"],
        "environment": facts["environment"],
        "files": files,
    }


def _codes(architecture: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of the codes; of plain quantizers what it said before there were others."""
    quantizer = quantizer_of(architecture)
    bits = math.log2(quantizer.size)
    plain = {
        "codebook_size": quantizer.size,
        "codeword_dim": quantizer.dim,
        "bits_per_code": bits,
    }
    if "quantizer" not in architecture:
        return plain
    count = max(quantizer.depth, 1)
    return plain | {
        "quantizer": {"in_words": quantizer_in_words(architecture), **architecture["quantizer"]},
        "codes_per_position": count,
        "bits_per_position": count * bits,
        "codebook_arrays": {
            name: list(array.shape) for name, array in arrays.items() if name.startswith("codebook")
        },
    }


def page_of(card: Mapping[str, Any], readings: Sequence[str] = ()) -> str:
    """The card as Markdown.

    Args:
      card: from card_of.
      readings: how further formats are loaded, as Markdown.

    Returns:
      The text of README.md.
    """
    orbax_bytes = sum(
        file["bytes"] for name, file in card["files"].items() if name.startswith("orbax/")
    )
    template = "mq_jax.tokenizers", "export_card.md.jinja"
    return filled(*template, **card, orbax_bytes=orbax_bytes, readings=readings)


def filled(package: str, name: str, **values: Any) -> str:
    """A page from its template.

    Args:
      package: that has the template.
      name: of its file.
      values: what it speaks of.

    Returns:
      Markdown.
    """
    text = resources.files(package).joinpath(name).read_text("utf-8")
    # Markdown, not HTML: nothing is escaped.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(text).render(values)
