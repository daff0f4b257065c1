"""Fields that change nothing are told, and only those."""

import pytest
import runs

from mq_jax import commandline
from mq_jax.training.unused import unused_fields

# What the others are, a field that is given, and what the sentence names.
CASES = {
    "epochs where steps win": ({}, "train.epochs", "config.train.steps is 12 and wins; 0 counts"),
    "epochs that count": ({"train__steps": 0}, "train.epochs", None),
    "steps": ({}, "train.steps", None),
    "a weight of no perceptual term": ({}, "perceptual.weight", "config.perceptual.net is 'none'"),
    "a weight of one": ({"perceptual__net": "vgg"}, "perceptual.weight", None),
    "a discriminator that is not there": ({}, "discriminator.r1", "discriminator.weight is 0.0"),
    "its optimizer": ({}, "disc.b1", "discriminator.weight is 0.0"),
    "its weight": ({}, "discriminator.weight", None),
    "one that is there": ({"discriminator__weight": 0.1}, "disc.b1", None),
    "a field of the other model": ({}, "model.groups", "config.model.kind is 'vqvae'"),
    "a field of this model": ({"model__kind": "vqgan"}, "model.groups", None),
    "a field of both": ({"model__kind": "maskgit"}, "model.groups", None),
    "a field of one of both": ({"model__kind": "maskgit"}, "model.attention", "vqgan reads it"),
    "a layer that is not there": ({"codebook__kind": "linear"}, "codebook.hidden", "'linear'"),
    "an embedding of its own width": ({"codebook__kind": "basis"}, "codebook.embedding_dim", "'b"),
    "a layer that is there": ({}, "codebook.hidden", None),
    "a column of no Parquet file": ({}, "data.image_column", "config.data.source is"),
    "a column of one": ({"data__source": "parquet"}, "data.image_column", None),
    "a label's column of a folder": (
        {"data__source": "folder"},
        "data.label_column",
        "'folder' and wins; parquet and wds read it",
    ),
    "a label's key in tar shards": ({"data__source": "wds"}, "data.label_column", None),
    "K of a kind that makes it": ({"quantizer__kind": "fsq"}, "codebook.size", "kind is 'fsq'"),
    "D of one": ({"quantizer__kind": "bsq"}, "codebook.dim", "kinds with a codebook read it"),
    "K of running means": ({"quantizer__kind": "ema"}, "codebook.size", None),
    "a hyper-net of none": ({"quantizer__kind": "ema"}, "codebook.kind", "kind is 'ema' and wins"),
    "one of a kind with it": ({"quantizer__kind": "ibq"}, "codebook.kind", None),
    "a base of running means": ({"quantizer__kind": "ema"}, "codebook.base", None),
    "a base of none": ({"quantizer__kind": "fsq"}, "codebook.base", "kind is 'fsq' and wins"),
    "features of no k-means": ({}, "codebook.features", "base is 'normal' and wins; kmeans reads"),
    "features of one": ({"codebook__base": "kmeans"}, "codebook.base_images", None),
    "a file of no base": ({"codebook__base": "kmeans"}, "codebook.base_file", "'kmeans' and wins"),
    "a file of one": ({"codebook__base": "file"}, "codebook.base_file", None),
    "a pull of a mixture": ({"quantizer__kind": "gumbel"}, "quantizer.commitment", "vq, l2 and c"),
    "a pull of the nearest": ({"quantizer__kind": "l2"}, "quantizer.commitment", None),
    "a level's share": ({}, "quantizer.dropout", "config.quantizer.depth is 1"),
    "one of levels": ({"quantizer__depth": 2}, "quantizer.shared", None),
    "noise of no estimator": ({}, "quantizer.noise", "config.train.straight_through is 'encoder'"),
    "its own noise": ({"train__straight_through": "diveq"}, "quantizer.noise", None),
    "terms of no system": ({}, "train.implicit_terms", "config.train.hypergradient is 'unrolled'"),
    "damping of one": ({"train__hypergradient": "cg"}, "train.implicit_damping", None),
    "a rate of no series": (
        {"train__hypergradient": "cg"},
        "train.neumann_rate",
        "is 'cg' and wins; neumann",
    ),
    "its own rate": ({"train__hypergradient": "neumann"}, "train.neumann_rate", None),
    "a lookup of none": ({"quantizer__kind": "lfq"}, "codebook.lookup_chunk", "kind is 'lfq'"),
    "an embedding of none": ({"quantizer__kind": "ema"}, "codebook.train_embedding", "is 'ema'"),
    "activations of no step before": (
        {"train__hypergradient": "unrolled"},
        "train.keep_activations",
        "is 'unrolled' and wins; pipelined",
    ),
    "a pullback of none": ({"train__hypergradient": "none"}, "inner.pullback_eps", "is 'none'"),
    "a pullback": ({"train__hypergradient": "pipelined"}, "inner.pullback_eps", None),
    "moments of no Adam": ({"outer__kind": "sgd"}, "outer.b2", "config.outer.kind is 'sgd'"),
    "momentum": ({"outer__kind": "sgd"}, "outer.b1", None),
    "an estimator of what is drawn": (
        {"quantizer__kind": "ibq"},
        "train.straight_through",
        "config.quantizer.kind is 'ibq'",
    ),
    "a section of another kind": ({}, "quantizer.fsq.levels", "kind is 'vq' and wins; fsq reads"),
    "one's own": ({"quantizer__kind": "fsq"}, "quantizer.fsq.levels", None),
    "the kind itself": ({"quantizer__kind": "fsq"}, "quantizer.kind", None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_field_that_another_one_rules_out_is_told_in_one_line(case):
    changes, given, part = CASES[case]
    found = unused_fields(runs.configure(**changes), [given])
    assert len(found) == (part is not None)
    for line in found:
        assert line.startswith(f"config.{given} changes nothing: ") and part in line
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "argument", ["--config.train.epochs=5", "--config.train.epochs 5", "-config.train.epochs=5"]
)
def test_the_fields_of_a_command_line_are_found(argument):
    argv = ["mq_jax.main", "--config=configs/photos_mqvae.py", *argument.split(), "--workdir=w"]
    assert commandline.overridden(argv) == ["train.epochs"]
    assert commandline.overridden(["mq_jax.main", "--noconfig.data.resize"]) == ["data.resize"]


def test_the_program_says_it_before_anything_else():
    given = ["--mode=plan", "--devices=1", "--nocompile", "--config.train.epochs=3"]
    outcome = runs.cli(*runs.arguments(), *given, "--config.model.dtype=float16")
    assert outcome.err.splitlines()[0] == (
        "config.train.epochs changes nothing: config.train.steps is 12 and wins; 0 counts epochs."
    )
