"""The architecture of an export: of a configuration what encodes and decodes, and back to it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.quantizer import Quantizer
from mq_jax.quantizers.sqvae import VARIANCES
from mq_jax.runs.earlier import completed
from mq_jax.storage.schema import FLAG, NUMBER, Rule, choice, whole
from mq_jax.training.quantizing import make_quantizer

_BITS = {"bits": whole(1, 24)}

# What of a kind's own section its encode and decode read, with the rules of a schema.
OWN_FIELDS: dict[str, dict[str, Rule]] = {
    "cvq": {"cosine": FLAG},
    "sqvae": {"variance": choice(*VARIANCES)},
    "ibq": {"scale": ("a finite number above 0", lambda value: NUMBER[1](value) and value > 0)},
    "fsq": {
        "levels": (
            "a list of 1 to 24 whole numbers in [2, 1000]",
            lambda value: (
                isinstance(value, list)
                and 1 <= len(value) <= 24
                and all(whole(2, 1000)[1](level) for level in value)
            ),
        )
    },
    "lfq": _BITS,
    "bsq": _BITS,
}

# Codewords are folded, so that any net that makes them will do: the least.
_FOLDED = {"kind": "embedding", "embedding_dim": 1, "hidden": 1}

# Fields that most models have at these values, and that came after the first exports.
USUAL = {"middle_attention": True, "unit_pixels": False}

_WORDS = {
    "vq": "vector quantization",
    "l2": "vector quantization on the unit sphere",
    "cvq": "vector quantization, idle codes moved to encodings (CVQ)",
    "ema": "vector quantization, codewords running means",
    "sqvae": "stochastic vector quantization (SQ-VAE), Gaussian {variance}",
    "gumbel": "Gumbel-softmax",
    "ibq": "index backpropagation quantization",
    "fsq": "finite scalar quantization, levels {levels}",
    "lfq": "lookup-free quantization, {bits} bits",
    "bsq": "binary spherical quantization, {bits} bits",
}


def architecture_of(config: ConfigDict) -> dict[str, Any]:
    """What of a configuration an export keeps.

    Args:
      config: of the run, validated.

    Returns:
      Sections fit for JSON; `quantizer` only where it is not the plain one, so that plain
      exports are those of before it.
    """
    model = config.to_dict()["model"]
    # It costs memory to keep what a backward pass recomputes; there is none.
    model["remat"] = False
    # Without, as in exports of before the fields.
    model = {name: value for name, value in model.items() if value != USUAL.get(name)}
    architecture = {
        "model": model,
        "codebook": {name: config.codebook[name] for name in ("size", "dim", "lookup_chunk")},
        "data": {"image_size": config.data.image_size},
    }
    quantizer = config.quantizer
    if (quantizer.kind, quantizer.groups, quantizer.depth) != ("vq", 1, 1):
        architecture["quantizer"] = _fields(quantizer)
    # As JSON gives it back: lists for tuples.
    return json.loads(json.dumps(architecture))


def config_of(architecture: Mapping[str, Any]) -> ConfigDict:
    """A configuration that makes the modules of an export.

    Args:
      architecture: from architecture_of, or of a file and checked.

    Returns:
      Its sections model, codebook, quantizer and data; what only training reads stands at some
      value.
    """
    sections = {**architecture, "codebook": {**architecture["codebook"], **_FOLDED}}
    if "quantizer" in sections:
        sections["quantizer"] = _fields(sections["quantizer"])
    return ConfigDict(completed(sections))


def quantizer_of(architecture: Mapping[str, Any]) -> Quantizer:
    """The quantizer of an export, for `encode` and `decode` of what was folded.

    Args:
      architecture: as config_of's.

    Returns:
      A Quantizer.
    """
    config = config_of(architecture)
    return make_quantizer(config, _lookup(config.codebook.lookup_chunk))


def folded_shapes(quantizer: Quantizer) -> Any:
    """The tree that a quantizer folds to, by its shapes; nothing is computed.

    Args:
      quantizer: from quantizer_of.

    Returns:
      A tree of ShapeDtypeStruct.
    """
    return jax.eval_shape(lambda: quantizer.fold(*quantizer.init(jax.random.key(0))))


def quantizer_in_words(architecture: Mapping[str, Any]) -> str:
    """What turns encodings into codes, for people.

    Args:
      architecture: as config_of's.

    Returns:
      A phrase: "2 groups of 3 residual levels of vector quantization".
    """
    fields = architecture.get("quantizer", {"kind": "vq", "groups": 1, "depth": 1})
    own = dict(fields.get(fields["kind"], {}))
    if "levels" in own:
        own["levels"] = " x ".join(map(str, own["levels"]))
    words = _WORDS[fields["kind"]].format(**own)
    if fields["depth"] > 1:
        words = f"{fields['depth']} residual levels of {words}"
        words += ", which share a codebook" if fields["shared"] else ""
    return f"{fields['groups']} groups of {words}" if fields["groups"] > 1 else words


def _fields(section: Mapping[str, Any]) -> dict[str, Any]:
    """What encode and decode read of a section quantizer."""
    kind, depth = section["kind"], section["depth"]
    fields = {"kind": kind, "groups": section["groups"], "depth": depth}
    # Of one level it says nothing, and the same model has the same fingerprint.
    fields["shared"] = section["shared"] and depth > 1
    if kind in OWN_FIELDS:
        fields[kind] = {name: section[kind][name] for name in OWN_FIELDS[kind]}
    return fields


@functools.cache
def _lookup(chunk: int):
    """The same function for the same chunk: lookups made of it are kept."""
    return functools.partial(nearest_codeword, chunk=chunk)
