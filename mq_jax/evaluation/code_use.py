"""How many codes are in use, in words: their share, and what to do where they are few."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

# Of the share of codes in use, wherever a person reads it; Python and the report's plots know it.
USAGE = ".1%"

# Below a half, a codebook of half the size would hold every code in use: a bit of each code is
# spent on nothing. Published tokenizers that are called well used have more than nine tenths.
FEW = 0.5

# Where even uniform drawing would meet fewer, too few codes were seen to call any of them dead.
ENOUGH = 0.9

# The ratio of learning rates that was measured as a cure, in README.md.
_RATIO = 10


# Kinds of quantizers for which a cure was measured: the nearest codeword, moved by a gradient.
_TRAINED = ("vq", "l2")


class Codebook(NamedTuple):
    """The fields of a configuration that decide how many codes come into use.

    Attributes:
      size: K.
      kind: of codebook.KINDS.
      layer_norm: of the model.
      learning_rate_ratio: of the outer level.
      quantizer: its kind.
      codes: J, of a position.
      restart: what sets idle codes anew, a count or a number of steps; 0 where nothing does.
    """

    size: int
    kind: str
    layer_norm: bool
    learning_rate_ratio: float
    quantizer: str = "vq"
    codes: int = 1
    restart: float = 0


def codebook_of(fields: Mapping[str, Any]) -> Codebook:
    """The codebook of a run.

    Args:
      fields: its configuration by dotted name.

    Returns:
      A Codebook.
    """
    kind = fields["quantizer.kind"]
    restarts = {"ema": "quantizer.ema.restart_below"}
    return Codebook(
        fields["codebook.size"],
        fields["codebook.kind"],
        fields["model.layer_norm"],
        fields["outer.learning_rate_ratio"],
        kind,
        fields["quantizer.groups"] * fields["quantizer.depth"],
        fields[restarts.get(kind, "quantizer.restart_every")],
    )


def codes_in_words(codebook: Codebook) -> str:
    """What a code is one of.

    Args:
      codebook: any.

    Returns:
      "1,000 (9.966 bits)", with the number of codes of a position where it has several.
    """
    told = f"{codebook.size:,} ({math.log2(codebook.size):.4g} bits)"
    return told if codebook.codes == 1 else f"{told}, {codebook.codes} at each position"


def usage_in_words(usage: float) -> str:
    """The share of codes that occur, as everybody writes it.

    Args:
      usage: in [0, 1].

    Returns:
      A percentage.
    """
    return format(usage, USAGE)


def few_codes(codebook: Codebook, usage: float, perplexity: float, drawn: int) -> str:
    """What is to be said of a codebook that is hardly used.

    Args:
      codebook: whose codes were drawn.
      usage: share of its codes that occur, in [0, 1]; the J codes of a position are counted apart.
      perplexity: in [1, J K].
      drawn: number of codes that were seen.

    Returns:
      Numbers and a cure; empty where enough codes are in use, and where too few were seen to tell:
      n drawn uniformly have 1 - exp(-n / K) of K among them.
    """
    size = codebook.size * codebook.codes
    if usage >= FEW or -math.expm1(-drawn / size) < ENOUGH:
        return ""
    used = round(usage * size)
    # Of J codes the mean: each is drawn as often, which alone adds log2 J to the entropy of all.
    effective = math.log2(max(perplexity / codebook.codes, 1))
    told = (
        f"Few codes are in use: {used:,} of {size:,} ({usage_in_words(usage)}); a code has "
        f"{math.log2(codebook.size):.4g} bits and carries {effective:.1f} (perplexity "
        f"{perplexity:.1f})."
    )
    cure = _cure(codebook, -(-used // codebook.codes))
    if not cure:
        return told
    return f"{told} A new run may use more with {cure}; see 'Few codes in use?' in README.md."


def _cure(codebook: Codebook, used: int) -> str:
    """Of the cures that this codebook has not had, the one that measures best; "" for none."""
    if codebook.quantizer == "ema" and not codebook.restart:
        return "config.quantizer.ema.restart_below=0.5"
    if codebook.quantizer not in _TRAINED:
        return ""
    # A restart overwrites codewords, which a hyper-net would compute.
    if codebook.kind == "embedding" and not codebook.restart:
        return "config.codebook.kind=mlp"
    # Within 0.1 dB of the next cure on the photographs (README.md), and no rate to choose.
    if codebook.layer_norm:
        return "config.model.layer_norm=False"
    if codebook.learning_rate_ratio < _RATIO:
        return f"config.outer.learning_rate_ratio={_RATIO}"
    # Brings no further code into use, but wastes fewer.
    return f"config.codebook.size={1 << max(used - 1, 0).bit_length()}"
