"""Fields that a person gave and that other fields leave without effect."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mq_jax.runs.workdir import flat


class _Rule(NamedTuple):
    """Fields, or sections where a name ends in a dot; the field that rules them; what to do."""

    names: tuple[str, ...]
    ruler: str
    unused: Callable[[Any], bool]
    remedy: str


_RULES = (
    _Rule(("train.epochs",), "train.steps", bool, "0 counts epochs"),
    _Rule(("perceptual.weight",), "perceptual.net", lambda net: net == "none", "vgg has the term"),
    _Rule(
        ("discriminator.", "disc."),
        "discriminator.weight",
        lambda weight: not weight,
        "a positive number has a discriminator",
    ),
    _Rule(
        ("model.multipliers", "model.attention", "model.z_channels", "model.groups"),
        "model.kind",
        lambda kind: kind == "vqvae",
        "vqgan reads it",
    ),
    _Rule(
        ("codebook.hidden",),
        "codebook.kind",
        lambda kind: kind not in ("mlp", "mlp-relu"),
        "mlp and mlp-relu read it",
    ),
    _Rule(
        ("codebook.embedding_dim",),
        "codebook.kind",
        lambda kind: kind in ("basis", "embedding"),
        "mlp, mlp-relu and linear read it",
    ),
)


def unused_fields(config: ConfigDict, given: Iterable[str]) -> list[str]:
    """What of the given fields changes nothing.

    Args:
      config: with them; it need not be validated yet.
      given: dotted names, `train.epochs` say.

    Returns:
      A sentence for each such field: what wins, and what would make it count.
    """
    values = flat(config.to_dict())
    return [
        f"config.{name} changes nothing: config.{rule.ruler} is {values[rule.ruler]!r} and wins; "
        f"{rule.remedy}."
        for name in dict.fromkeys(given)
        for rule in _RULES
        if _covers(rule, name) and rule.ruler in values and rule.unused(values[rule.ruler])
    ]


def _covers(rule: _Rule, name: str) -> bool:
    sections = tuple(prefix for prefix in rule.names if prefix.endswith("."))
    return name != rule.ruler and (name in rule.names or name.startswith(sections))
