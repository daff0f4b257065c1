"""What a quantizer asks of the other fields: refused in one line, and nothing more than that."""

import pytest
import runs

from mq_jax.quantizers.bridge import Bridge
from mq_jax.training.quantizing import DRAWN, KINDS, NEAREST, UNTRAINED
from mq_jax.training.validate import validate

JOINT = {"train.hypergradient": "joint"}
SQVAE = {
    **JOINT,
    "quantizer.kind": "sqvae",
    "train.reconstruction": "log-mse",
    "train.quantization_weight": 1.0,
    "model.layer_norm": False,
}
III = {**SQVAE, "quantizer.sqvae.variance": "III"}


def of(kind, **changes):
    """Fields of a kind that are right together, and changes of them."""
    own = SQVAE if kind == "sqvae" else {**JOINT, "quantizer.kind": kind}
    if kind == "cvq":
        own = {**own, "codebook.kind": "embedding"}
    return {**own, **{name.replace("__", "."): value for name, value in changes.items()}}


# Fields, how the line begins, and what it expects.
REFUSED = [
    (of("fsq", codebook__size=64), "codebook.size and dim are (64, 4)", "(1000, 4)"),
    (of("lfq", codebook__dim=4), "codebook.size and dim are (1024, 4)", "(1024, 10)"),
    (of("vq", quantizer__groups=3), "quantizer.groups is 3", "a divisor of config.codebook.dim, 4"),
    *(
        (of(kind, quantizer__depth=2), "quantizer.depth is 2", "a kind with a codebook")
        for kind in ("fsq", "lfq", "bsq")
    ),
    ({**III, "quantizer.depth": 2}, "quantizer.depth is 2", "variance I"),
    ({**III, "model.layer_norm": True}, "quantizer.sqvae.variance is 'III'", "layer_norm False"),
    ({**III, "quantizer.groups": 2}, "quantizer.sqvae.variance is 'III'", "quantizer.groups 1"),
    *(
        ({"quantizer.kind": kind}, "train.hypergradient is 'unrolled'", "expected 'joint'")
        for kind in UNTRAINED
    ),
    *(
        (
            of(kind, quantizer__commitment=0.25, train__hypergradient=hypergradient),
            "quantizer.commitment is 0.25 and codebook 1.0",
            "equal weights",
        )
        for kind in NEAREST
        for hypergradient in ("unrolled", "none")
    ),
    (
        {"codebook.kind": "embedding", "codebook.train_embedding": False},
        "codebook.train_embedding is False with kind 'embedding'",
        "expected 'joint'",
    ),
    (of("cvq", codebook__kind="mlp"), "codebook.kind is 'mlp'", "expected 'embedding'"),
    (of("vq", quantizer__restart_every=9), "codebook.kind is 'mlp'", "expected 'embedding'"),
    (of("cvq", quantizer__restart_every=9), "quantizer.restart_every is 9", "expected 0"),
    (
        of("vq", codebook__kind="transformer", codebook__size=17),
        "codebook.size is 17 and hidden 8",
        f"multiples of {Bridge.patch} and {Bridge.heads}",
    ),
    (
        of("vq", codebook__kind="transformer", codebook__hidden=9),
        "codebook.size is 16 and hidden 9",
        f"multiples of {Bridge.patch} and {Bridge.heads}",
    ),
    *(
        (of(kind, codebook__shard_lookup=True), "codebook.shard_lookup is True", "expected False")
        for kind in DRAWN
    ),
    *(
        (
            of(kind, train__straight_through="rotation"),
            "train.straight_through is 'rotation'",
            "known to diverge",
        )
        for kind in DRAWN
    ),
    (
        of("vq", train__straight_through="rotation", codebook__train_embedding=False),
        "train.straight_through is 'rotation'",
        "SimVQ is known to collapse",
    ),
    (
        of("vq", train__straight_through="rotation", quantizer__groups=4),
        "train.straight_through is 'rotation'",
        "one channel",
    ),
    (
        of("vq", codebook__base="kmeans", codebook__kind="basis"),
        "codebook.base is 'kmeans' with kind 'basis'",
        "expected another kind",
    ),
    (
        of("vq", codebook__base="kmeans", codebook__kind="linear"),
        "codebook.embedding_dim is 3, while features 'encoder' have 4 channels",
        "other features, or codebook.base 'normal'",
    ),
    *(
        (
            of(kind, codebook__base="kmeans", codebook__features="vgg", **{"codebook__kind": own}),
            "codebook.dim over quantizer.groups is 4, while features 'vgg' have 512 channels",
            "other features, or codebook.base 'normal'",
        )
        for kind, own in (("vq", "embedding"), ("ema", "mlp"))
    ),
    (
        {
            **of("vq", codebook__base="kmeans", codebook__features="vgg", data__image_size=8),
            "codebook.embedding_dim": 512,
        },
        "data.image_size is 8",
        "at least 16 for codebook.features 'vgg'",
    ),
    (of("vq", codebook__base="file"), "codebook.base is 'file', and base_file is ''", "the path"),
    ({**SQVAE, "train.reconstruction": "mse"}, "train.reconstruction is 'mse'", "'log-mse' and 1"),
    (
        {**SQVAE, "train.quantization_weight": 0.1},
        "train.reconstruction is 'log-mse' and quantization_weight 0.1",
        "'log-mse' and 1",
    ),
    ({**SQVAE, "train.accumulate": 2}, "train.accumulate is 2 with reconstruction", "expected 1"),
]


def configured(values):
    config = runs.configure(**{n.replace(".", "__"): v for n, v in values.items()})
    # Given beside a kind that makes its own; the program would have told that it changes nothing.
    return runs.set_fields(config, {n: v for n, v in values.items() if n.startswith("codebook.")})


@pytest.mark.parametrize("values, given, expected", REFUSED)
def test_what_a_quantizer_cannot_do_is_refused_in_one_line(values, given, expected):
    with pytest.raises(ValueError) as caught:
        validate(configured(values))
    message = str(caught.value)
    assert message.startswith(f"config.{given}") and expected in message
    assert "\n" not in message


ALLOWED = [
    *map(of, KINDS),
    *(of(kind, quantizer__groups=2) for kind in KINDS),
    *(of(kind, quantizer__depth=3) for kind in KINDS if kind not in ("fsq", "lfq", "bsq")),
    *(
        of(kind, train__straight_through=estimator)
        for kind in set(KINDS) - set(DRAWN)
        for estimator in ("rotation", "diveq")
    ),
    *(of(kind, train__hypergradient="unrolled") for kind in set(KINDS) - set(UNTRAINED)),
    of("cvq", quantizer__commitment=0.25),
    of("vq", quantizer__restart_every=9, codebook__kind="embedding"),
    of("vq", codebook__kind="transformer"),
    of("vq", codebook__kind="linear", codebook__base="scaled", codebook__train_embedding=False),
    III,
    *(
        of(kind, codebook__base="kmeans", codebook__kind="embedding", quantizer__groups=groups)
        for kind in (*NEAREST, *DRAWN, "ema")
        for groups in (1, 2)
    ),
    *(
        of("vq", codebook__base="kmeans", codebook__kind=kind, codebook__embedding_dim=4)
        for kind in ("linear", "mlp", "mlp-relu", "transformer")
    ),
    of("vq", codebook__base="kmeans", codebook__features="vgg", codebook__embedding_dim=512),
    # Without bases there is nothing that one could be of.
    of("fsq", codebook__base="file"),
]


@pytest.mark.parametrize("values", ALLOWED)
def test_what_a_quantizer_can_do_is_allowed(values):
    validate(configured(values))


def test_fields_that_are_wrong_in_themselves_come_before_those_that_disagree():
    values = {"quantizer.kind": "ema", "model.layer_norm": True, "quantizer.groups": 0}
    with pytest.raises(ValueError, match="config.quantizer.groups is 0; expected a whole number"):
        validate(configured(values))


def test_the_net_and_its_codebook_come_before_the_quantizer_and_this_before_the_training():
    """In the order of the sections, so that one mended line never brings back an earlier one."""
    config = configured({"quantizer.kind": "ema", "data.image_size": 33, "train.accumulate": 3})
    for field, value, expected in (
        ("data.image_size", 32, "config.data.image_size is 33"),
        ("train.hypergradient", "joint", "config.train.hypergradient is 'unrolled'"),
        ("train.accumulate", 1, "config.train.accumulate is 3"),
    ):
        with pytest.raises(ValueError, match=expected):
            validate(config)
        runs.set_fields(config, {field: value})
    validate(config)
