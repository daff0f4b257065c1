"""What a quantizer asks of the other fields of a configuration."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from mq_jax.models import lpips
from mq_jax.quantizers.bridge import Bridge
from mq_jax.training.quantizing import (
    DRAWN,
    NEAREST,
    UNTRAINED,
    are_codewords,
    base_width,
    feature_width,
    gives_log_variances,
    sizes,
    starts_from_tables,
)

# Of a position: each is a part of the program, and far more were never trained.
MOST_CODES = 256

# Of which there are histograms; a table of them would be larger still.
MOST_SIZE = 2**24


def check_quantizer(config: ConfigDict) -> None:
    """Checks the section quantizer against the rest.

    Args:
      config: each of its fields is right in itself.

    Raises:
      ValueError: names the fields, their values and what to change.
    """
    for problem in shape_problems(config):
        raise ValueError(problem)
    for problems in (_of_levels, _of_codebook, _of_base, _of_estimator, _of_loss):
        for problem in problems(config, config.quantizer.kind):
            raise ValueError(problem)


def shape_problems(config: ConfigDict) -> Iterator[str]:
    """What is wrong with K, D and J, and with how they are shared out.

    Args:
      config: its sections model, codebook and quantizer are read.

    Yields:
      A sentence for each problem.
    """
    fields, found = config.quantizer, (config.codebook.size, config.codebook.dim)
    kind = fields.kind
    if fields.groups * fields.depth > MOST_CODES:
        yield (
            f"config.quantizer.groups is {fields.groups} and depth {fields.depth}; expected at "
            f"most {MOST_CODES} codes of a position together."
        )
        return
    if kind in UNTRAINED[1:] and sizes(config)[0] > MOST_SIZE:
        yield (
            f"config.quantizer.{kind} makes more than {MOST_SIZE:,} codes; expected at most as "
            "many: take quantizer.groups of fewer."
        )
        return
    if found != sizes(config):
        yield (
            f"config.codebook.size and dim are {found}, while quantizer.kind {kind!r} makes "
            f"{sizes(config)} of its own fields; expected these."
        )
    if config.codebook.dim % fields.groups:
        yield (
            f"config.quantizer.groups is {fields.groups}; expected a divisor of "
            f"config.codebook.dim, {config.codebook.dim}."
        )
    if fields.depth > 1 and (kind in UNTRAINED[1:] or gives_log_variances(config)):
        yield (
            f"config.quantizer.depth is {fields.depth} with kind {kind!r}, which has no codewords "
            "for what a level leaves; expected 1, or a kind with a codebook (sqvae: variance I)."
        )
    if gives_log_variances(config) and (config.model.layer_norm or fields.groups > 1):
        yield (
            "config.quantizer.sqvae.variance is 'III', whose log-variances come with z from the "
            "encoder; expected config.model.layer_norm False and config.quantizer.groups 1."
        )


def _of_levels(config: ConfigDict, kind: str) -> Iterator[str]:
    """The two levels of Meta-Quantization."""
    fields, hypergradient = config.quantizer, config.train.hypergradient
    if hypergradient == "joint":
        return
    if kind in UNTRAINED:
        yield (
            f"config.train.hypergradient is {hypergradient!r}, and quantizer.kind {kind!r} has "
            "nothing that an outer level could train; expected 'joint'."
        )
    codebook = config.codebook
    if kind in NEAREST and codebook.kind == "embedding" and not codebook.train_embedding:
        yield (
            "config.codebook.train_embedding is False with kind 'embedding', whose codewords are "
            f"then never trained, and hypergradient {hypergradient!r}; expected 'joint', or "
            "another kind of codebook."
        )
    if kind in NEAREST and fields.commitment != fields.codebook:
        yield (
            f"config.quantizer.commitment is {fields.commitment} and codebook {fields.codebook}; "
            f"expected equal weights with hypergradient {hypergradient!r}: no single term with "
            "unequal ones has the right mixed derivative. 'joint' takes them."
        )


def _of_codebook(config: ConfigDict, kind: str) -> Iterator[str]:
    """The codebook and its lookup."""
    codebook, fields = config.codebook, config.quantizer
    overwrites = kind == "cvq" or (kind in NEAREST and fields.restart_every)
    if overwrites and codebook.kind != "embedding":
        yield (
            f"config.codebook.kind is {codebook.kind!r}, whose codewords a net makes, while "
            "quantizer.kind 'cvq' and quantizer.restart_every overwrite them; expected 'embedding'."
        )
    if kind == "cvq" and fields.restart_every:
        yield (
            f"config.quantizer.restart_every is {fields.restart_every} with kind 'cvq', which "
            "replaces idle codes itself; expected 0."
        )
    uneven = codebook.size % Bridge.patch or codebook.hidden % Bridge.heads
    if codebook.kind == Bridge.kind and uneven:
        yield (
            f"config.codebook.size is {codebook.size} and hidden {codebook.hidden}; expected "
            f"multiples of {Bridge.patch} and {Bridge.heads} with kind {Bridge.kind!r}."
        )
    if codebook.shard_lookup and kind in DRAWN:
        yield (
            f"config.codebook.shard_lookup is True, and quantizer.kind {kind!r} weighs all "
            "codewords for each z, for which they are not split; expected False."
        )


def _of_base(config: ConfigDict, kind: str) -> Iterator[str]:
    """A base that is made of data."""
    codebook = config.codebook
    if not starts_from_tables(config):
        return
    if codebook.kind == "basis" and kind != "ema":
        yield (
            f"config.codebook.base is {codebook.base!r} with kind 'basis', whose embedding has no "
            "row for each codeword; expected another kind, or base 'normal' or 'scaled'."
        )
    if codebook.base == "file":
        if not codebook.base_file:
            yield "config.codebook.base is 'file', and base_file is ''; expected the path of one."
        return
    wide, width = base_width(config), feature_width(config)
    if wide != width:
        field = "dim over quantizer.groups" if are_codewords(config) else "embedding_dim"
        yield (
            f"config.codebook.{field} is {wide}, while features {codebook.features!r} have "
            f"{width} channels; expected {width}, other features, or codebook.base 'normal'."
        )
    if codebook.features == "vgg" and config.data.image_size < lpips.architecture("vgg").minimum:
        yield (
            f"config.data.image_size is {config.data.image_size}; expected at least "
            f"{lpips.architecture('vgg').minimum} for codebook.features 'vgg'."
        )


def _of_estimator(config: ConfigDict, kind: str) -> Iterator[str]:
    """Combinations with straight_through that are known not to train."""
    if config.train.straight_through != "rotation":
        return
    if kind in DRAWN:
        yield (
            f"config.train.straight_through is 'rotation' with quantizer.kind {kind!r}, whose "
            "codes are drawn: it is known to diverge; expected another one."
        )
    if not config.codebook.train_embedding:
        yield (
            "config.train.straight_through is 'rotation' with codebook.train_embedding False: "
            "SimVQ is known to collapse with it; expected another one."
        )
    if config.codebook.dim == config.quantizer.groups:
        yield (
            "config.train.straight_through is 'rotation', and z has one channel, which cannot be "
            "turned; expected another one, or more channels."
        )


def _of_loss(config: ConfigDict, kind: str) -> Iterator[str]:
    """The loss that a quantizer's own belongs to."""
    train = config.train
    if kind == "sqvae" and (train.reconstruction, train.quantization_weight) != ("log-mse", 1):
        yield (
            f"config.train.reconstruction is {train.reconstruction!r} and quantization_weight "
            f"{train.quantization_weight}; expected 'log-mse' and 1 with quantizer.kind 'sqvae', "
            "whose loss is one term of a bound on the likelihood and this the other."
        )
