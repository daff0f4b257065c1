"""Writing the export of a prior: weights, programs and model card, as a tokenizer's."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mq_jax.samplers.export import PriorExport, restored_of
from mq_jax.samplers.export_programs import stablehlo
from mq_jax.samplers.export_reading import SAFETENSORS, read_prior
from mq_jax.tokenizers.export_card import filled
from mq_jax.tokenizers.export_folder import appearing, inventory, write_card
from mq_jax.tokenizers.programs import write_programs
from mq_jax.tokenizers.tensors import write_tensors


def write_prior(
    folder: str | os.PathLike,
    export: PriorExport,
    facts: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes all files.

    Args:
      folder: `export` of a run, by custom; appears whole or not at all.
      export: the prior.
      facts: for the card: "training", from training_facts; "evaluation", numbers by name, or None;
        "environment".
      overwrite: whether an export of another prior that is there may go.

    Returns:
      The folder.

    Raises:
      ValueError: the folder is there and holds another prior, or something else.
      OSError: it cannot be written.
    """
    folder = pathlib.Path(folder)
    with appearing(folder, export.fingerprint, read_prior, overwrite=overwrite) as place:
        write_tensors(place / SAFETENSORS, "prior", export.header, export.weights)
        programs = stablehlo(restored_of(export).prior, export.weights)
        write_programs(place, programs, export.fingerprint)
        card = card_of(export, facts, inventory(place))
        write_card(place, card, page_of(card))
    return folder


def card_of(
    export: PriorExport, facts: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The card, fit for JSON.

    Args:
      export: the prior.
      facts: as write_prior's.
      files: bytes and sha256 by path.

    Returns:
      A nested dict.
    """
    return {
        "version": export.header["version"],
        "fingerprint": export.fingerprint,
        "prior": export.fields,
        "tokens": export.facts.told,
        "parameters": sum(math.prod(array.shape) for array in export.weights.values()),
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
    return filled("mq_jax.samplers", "export_card.md.jinja", **card)
