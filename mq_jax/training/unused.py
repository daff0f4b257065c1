"""Fields that a person gave and that other fields leave without effect."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mq_jax.algorithm.bilevel import THROUGH_OPTIMIZER
from mq_jax.algorithm.implicit import SOLVERS
from mq_jax.runs.workdir import flat
from mq_jax.training.quantizing import DRAWN, NEAREST, UNTRAINED


class _Rule(NamedTuple):
    """Fields, or sections where a name ends in a dot; the field that rules them; what to do."""

    names: tuple[str, ...]
    ruler: str
    unused: Callable[[Any], bool]
    remedy: str


_OF_BASES = ("codebook.features", "codebook.base_images", "codebook.base_file")

_RULES: tuple[_Rule, ...] = (
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
        lambda kind: kind not in ("mlp", "mlp-relu", "transformer"),
        "mlp, mlp-relu and transformer read it",
    ),
    _Rule(
        ("codebook.embedding_dim",),
        "codebook.kind",
        lambda kind: kind in ("basis", "embedding"),
        "mlp, mlp-relu, linear and transformer read it",
    ),
    _Rule(
        ("codebook.size", "codebook.dim"),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED[1:],
        "kinds with a codebook read it",
    ),
    _Rule(
        ("codebook.kind", "codebook.embedding_dim", "codebook.hidden", "codebook.train_embedding"),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED,
        "kinds with a codebook that a gradient trains read it",
    ),
    _Rule(
        ("codebook.base", *_OF_BASES),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED[1:],
        "kinds with a codebook read it",
    ),
    _Rule(
        ("codebook.features", "codebook.base_images"),
        "codebook.base",
        lambda base: base != "kmeans",
        "kmeans reads it",
    ),
    _Rule(("codebook.base_file",), "codebook.base", lambda base: base != "file", "file reads it"),
    _Rule(
        ("codebook.lookup_chunk", "codebook.shard_lookup"),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED[1:],
        "kinds with a codebook read it",
    ),
    _Rule(
        ("quantizer.commitment", "quantizer.codebook", "quantizer.entropy")
        + ("quantizer.wasserstein", "quantizer.restart_every"),
        "quantizer.kind",
        lambda kind: kind not in NEAREST,
        "vq, l2 and cvq read it",
    ),
    _Rule(
        ("quantizer.shared", "quantizer.dropout"),
        "quantizer.depth",
        lambda depth: depth == 1,
        "a larger depth reads it",
    ),
    _Rule(
        ("quantizer.noise",),
        "train.straight_through",
        lambda kind: kind != "diveq",
        "diveq reads it",
    ),
    _Rule(
        ("train.implicit_terms", "train.implicit_damping"),
        "train.hypergradient",
        lambda kind: kind not in SOLVERS,
        "neumann and cg read it",
    ),
    _Rule(
        ("train.neumann_rate",),
        "train.hypergradient",
        lambda kind: kind != "neumann",
        "neumann reads it",
    ),
    _Rule(
        ("inner.pullback_eps",),
        "train.hypergradient",
        lambda kind: kind not in (*THROUGH_OPTIMIZER, "pipelined"),
        "kinds whose derivative passes the optimizer read it",
    ),
    _Rule(
        ("train.straight_through",),
        "quantizer.kind",
        lambda kind: kind in DRAWN,
        "kinds whose codes are not drawn read it",
    ),
)

# Of sources whose images lie in larger files.
_RULES += (
    _Rule(
        ("data.image_column",),
        "data.source",
        lambda source: source != "parquet",
        "parquet reads it",
    ),
    _Rule(
        ("data.label_column",),
        "data.source",
        lambda source: source not in ("parquet", "wds"),
        "parquet and wds read it",
    ),
)

# Of Adam alone.
_RULES += tuple(
    _Rule(
        tuple(f"{level}.{name}" for name in ("b2", "eps", "eps_root", "pullback_eps")),
        f"{level}.kind",
        lambda kind: kind == "sgd",
        "adam reads it",
    )
    for level in ("inner", "outer", "disc")
)

# A kind's own section.
_RULES += tuple(
    _Rule(
        (f"quantizer.{kind}.",),
        "quantizer.kind",
        lambda own, kind=kind: own != kind,
        f"{kind} reads it",
    )
    for kind in ("ema", "cvq", "sqvae", "gumbel", "ibq", "fsq", "lfq", "bsq")
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
