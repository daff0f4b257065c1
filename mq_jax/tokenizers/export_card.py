"""The model card: what an export is, where it comes from, how it is read."""

import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
from ml_collections import ConfigDict

from mq_jax.tokenizers.export import VERSION, Export, downsampling, named

# Paths of the machine that trained; they tell whose it was.
_PATHS = ("data.dir", "perceptual.dir")


def training_facts(config: ConfigDict, step: int) -> dict[str, Any]:
    """What a card says of the training.

    Args:
      config: of the run.
      step: of the checkpoint.

    Returns:
      {"source", "split", "step", "config"}, the configuration without its paths.
    """
    fields = config.to_dict()
    for path in _PATHS:
        section, field = path.split(".")
        fields[section][field] = ""
    source, split = config.data.source, config.data.train_split
    return {"source": source, "split": split, "step": step, "config": fields}


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

    size, dim = export.weights.codebook.shape
    return {
        "version": VERSION,
        "fingerprint": export.fingerprint,
        "tokenizer": {
            "kind": export.architecture["model"]["kind"],
            "codebook_size": size,
            "codeword_dim": dim,
            "bits_per_code": math.log2(size),
            "downsampling": downsampling(export),
            "trained_at": export.architecture["data"]["image_size"],
            "preparation": export.preparation,
            "parameters": {
                "encoder": parameters("theta/encoder/"),
                "decoder": parameters("theta/decoder/"),
                "codebook": size * dim,
            },
        },
        "training": facts["training"],
        "evaluation": facts["evaluation"],
        "environment": facts["environment"],
        "files": files,
    }


def page_of(card: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
      card: from card_of.

    Returns:
      The text of README.md.
    """
    text = resources.files("mq_jax.tokenizers").joinpath("export_card.md.jinja").read_text("utf-8")
    # Markdown, not HTML: nothing is escaped.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    orbax_bytes = sum(
        file["bytes"] for name, file in card["files"].items() if name.startswith("orbax/")
    )
    return environment.from_string(text).render(card, orbax_bytes=orbax_bytes)
