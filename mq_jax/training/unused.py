"""Fields that a person gave and that other fields leave without effect."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mq_jax.algorithm.bilevel import THROUGH_OPTIMIZER
from mq_jax.algorithm.implicit import SOLVERS
from mq_jax.runs.workdir import flat
from mq_jax.training.quantizing import DRAWN, NEAREST, UNTRAINED


class Overruled(NamedTuple):
    """Fields, or sections where a name ends in a dot; the field that rules them; what to do."""

    names: tuple[str, ...]
    ruler: str
    unused: Callable[[Any], bool]
    remedy: str


# Of the fields that both stages have.
SHARED: tuple[Overruled, ...] = (
    Overruled(("train.epochs",), "train.steps", bool, "0 counts epochs"),
    Overruled(("mesh.shard_from",), "mesh.fsdp", lambda fsdp: fsdp == 1, "more devices read it"),
    Overruled(
        ("data.image_column",),
        "data.source",
        lambda source: source != "parquet",
        "parquet reads it",
    ),
    Overruled(
        ("data.label_column",),
        "data.source",
        lambda source: source not in ("parquet", "wds"),
        "parquet and wds read it",
    ),
)

_OF_BASES = ("codebook.features", "codebook.base_images", "codebook.base_file")

RULES: tuple[Overruled, ...] = (
    *SHARED,
    Overruled(
        ("perceptual.weight",), "perceptual.net", lambda net: net == "none", "vgg has the term"
    ),
    Overruled(
        ("discriminator.", "disc."),
        "discriminator.weight",
        lambda weight: not weight,
        "a positive number has a discriminator",
    ),
    Overruled(
        ("model.multipliers", "model.unit_pixels", "model.groups"),
        "model.kind",
        lambda kind: kind == "vqvae",
        "vqgan and maskgit read it",
    ),
    Overruled(
        ("model.attention", "model.middle_attention", "model.z_channels"),
        "model.kind",
        lambda kind: kind != "vqgan",
        "vqgan reads it",
    ),
    Overruled(
        ("codebook.hidden",),
        "codebook.kind",
        lambda kind: kind not in ("mlp", "mlp-relu", "transformer"),
        "mlp, mlp-relu and transformer read it",
    ),
    Overruled(
        ("codebook.embedding_dim",),
        "codebook.kind",
        lambda kind: kind in ("basis", "embedding"),
        "mlp, mlp-relu, linear and transformer read it",
    ),
    Overruled(
        ("codebook.size", "codebook.dim"),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED[1:],
        "kinds with a codebook read it",
    ),
    Overruled(
        ("codebook.kind", "codebook.embedding_dim", "codebook.hidden", "codebook.train_embedding"),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED,
        "kinds with a codebook that a gradient trains read it",
    ),
    Overruled(
        ("codebook.base", *_OF_BASES),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED[1:],
        "kinds with a codebook read it",
    ),
    Overruled(
        ("codebook.features", "codebook.base_images"),
        "codebook.base",
        lambda base: base != "kmeans",
        "kmeans reads it",
    ),
    Overruled(
        ("codebook.base_file",), "codebook.base", lambda base: base != "file", "file reads it"
    ),
    Overruled(
        ("codebook.lookup_chunk", "codebook.shard_lookup"),
        "quantizer.kind",
        lambda kind: kind in UNTRAINED[1:],
        "kinds with a codebook read it",
    ),
    Overruled(
        ("quantizer.commitment", "quantizer.codebook", "quantizer.entropy")
        + ("quantizer.wasserstein", "quantizer.restart_every"),
        "quantizer.kind",
        lambda kind: kind not in NEAREST,
        "vq, l2 and cvq read it",
    ),
    Overruled(
        ("quantizer.shared", "quantizer.dropout"),
        "quantizer.depth",
        lambda depth: depth == 1,
        "a larger depth reads it",
    ),
    Overruled(
        ("quantizer.noise",),
        "train.straight_through",
        lambda kind: kind != "diveq",
        "diveq reads it",
    ),
    Overruled(
        ("train.implicit_terms", "train.implicit_damping"),
        "train.hypergradient",
        lambda kind: kind not in SOLVERS,
        "neumann and cg read it",
    ),
    Overruled(
        ("train.neumann_rate",),
        "train.hypergradient",
        lambda kind: kind != "neumann",
        "neumann reads it",
    ),
    Overruled(
        ("train.keep_activations",),
        "train.hypergradient",
        lambda kind: kind != "pipelined",
        "pipelined reads it",
    ),
    Overruled(
        ("inner.pullback_eps",),
        "train.hypergradient",
        lambda kind: kind not in (*THROUGH_OPTIMIZER, "pipelined"),
        "kinds whose derivative passes the optimizer read it",
    ),
    Overruled(
        ("train.straight_through",),
        "quantizer.kind",
        lambda kind: kind in DRAWN,
        "kinds whose codes are not drawn read it",
    ),
)

# Of Adam alone.
RULES += tuple(
    Overruled(
        tuple(f"{level}.{name}" for name in ("b2", "eps", "eps_root", "pullback_eps")),
        f"{level}.kind",
        lambda kind: kind == "sgd",
        "adam reads it",
    )
    for level in ("inner", "outer", "disc")
)

# A kind's own section.
RULES += tuple(
    Overruled(
        (f"quantizer.{kind}.",),
        "quantizer.kind",
        lambda own, kind=kind: own != kind,
        f"{kind} reads it",
    )
    for kind in ("ema", "cvq", "sqvae", "gumbel", "ibq", "fsq", "lfq", "bsq")
)


def unused_fields(
    config: ConfigDict, given: Iterable[str], rules: Sequence[Overruled] = RULES
) -> list[str]:
    """What of the given fields changes nothing.

    Args:
      config: with them; it need not be validated yet.
      given: dotted names, `train.epochs` say.
      rules: of its stage.

    Returns:
      A sentence for each such field: what wins, and what would make it count.
    """
    values = flat(config.to_dict())
    return [
        f"config.{name} changes nothing: config.{rule.ruler} is {values[rule.ruler]!r} and wins; "
        f"{rule.remedy}."
        for name in dict.fromkeys(given)
        for rule in rules
        if _covers(rule, name) and rule.ruler in values and rule.unused(values[rule.ruler])
    ]


def _covers(rule: Overruled, name: str) -> bool:
    sections = tuple(prefix for prefix in rule.names if prefix.endswith("."))
    return name != rule.ruler and (name in rule.names or name.startswith(sections))
