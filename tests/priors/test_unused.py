"""Fields of a prior that change nothing are told, and only those."""

import prior_runs
import pytest
import runs

from mq_jax.priors.checks import unused_fields, validate

# What the others are, a field that is given, and what the sentence names.
CASES = {
    "epochs where steps win": ({}, "train.epochs", "config.train.steps is 12 and wins; 0 counts"),
    "epochs that count": ({"train__steps": 0}, "train.epochs", None),
    "smoothing of a decoder": ({}, "prior.smoothing", "'autoregressive' and wins; masked reads"),
    "its own smoothing": ({"prior__kind": "masked"}, "prior.smoothing", None),
    "labels of no classes": (
        {"prior__conditional": False},
        "prior.class_dropout",
        "config.prior.conditional is False and wins; True reads it",
    ),
    "labels": ({}, "prior.class_dropout", None),
    "what one device shares out": ({}, "mesh.shard_from", "config.mesh.fsdp is 1"),
    "what several do": ({"mesh__fsdp": 2}, "mesh.shard_from", None),
    "images of no tokens": ({}, "data.views", None),
    "a split beside a set": ({"eval_tokens": "v"}, "data.eval_split", "config.eval_tokens is 'v'"),
    "a split": ({}, "data.eval_split", None),
    "a field of the first stage": ({}, "codebook.hidden", None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_field_that_another_one_rules_out_is_told_in_one_line(case):
    changes, given, part = CASES[case]
    found = unused_fields(prior_runs.configure(**changes), [given])
    assert len(found) == (part is not None)
    for line in found:
        assert line.startswith(f"config.{given} changes nothing: ") and part in line


def test_a_token_set_has_read_its_images(tmp_path):
    sets = prior_runs.write_sets(tmp_path)
    found = unused_fields(prior_runs.configure(**sets), ["data.views", "data.threads", "data.dir"])
    assert [line.partition(" ")[0] for line in found] == ["config.data.views", "config.data.dir"]
    assert sets["tokens"] in found[0] and "the folder of a tokenizer" in found[0]


def test_the_first_stage_keeps_its_rules():
    (line,) = unused_fields(runs.configure(), ["codebook.features"])
    assert "config.codebook.base" in line
    validate(runs.configure())
    with pytest.raises(ValueError, match="config.prior.kind is 'none'"):
        validate(prior_runs.configure(prior__kind="none"))


def test_the_program_says_it_before_anything_else():
    given = ["--mode=plan", "--devices=1", "--nocompile", "--config.prior.smoothing=0.2"]
    outcome = runs.cli(*prior_runs.arguments(), *given)
    assert outcome.err.splitlines()[0] == (
        "config.prior.smoothing changes nothing: config.prior.kind is 'autoregressive' and wins; "
        "masked reads it."
    )
