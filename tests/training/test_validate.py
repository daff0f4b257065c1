"""What a configuration may hold, and that every experiment holds it."""

import ast
import importlib
import json
import re
import shlex

import pytest
import runs
from absl.testing import flagsaver
from ml_collections import ConfigDict

from configs import base, mqgan
from mq_jax import commandline
from mq_jax.algorithm import mq
from mq_jax.quantizers import codebook
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.vq import VQ
from mq_jax.runs.earlier import ADDED, REPLACED, completed
from mq_jax.runs.workdir import flat
from mq_jax.training import quantizing
from mq_jax.training.consistency import require_trainable
from mq_jax.training.validate import RULES, validate

# ml_collections loads a configuration file in a way that Python 3.12 drops.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

EXPERIMENTS = sorted(
    path.stem
    for path in (runs.ROOT / "configs").glob("*.py")
    if path.stem not in ("__init__", "base", "mqvae", "mqgan", "quantizers", "prior")
    and not path.stem.endswith("_prior")
)
PRESETS = [(name, preset) for name in ("ffhq_mqgan", "imagenet_mqgan") for preset in mqgan.PRESETS]


def docstring(experiment):
    text = (runs.ROOT / "configs" / f"{experiment}.py").read_text()
    return ast.get_docstring(ast.parse(text))


def test_there_are_experiments():
    assert {"cifar10_mqvae", "celeba_mqvae", "folder_mqvae", "photos_mqvae"} | {
        *("ffhq_mqgan", "folder_mqgan", "imagenet_mqgan")
    } <= set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_valid_and_locked(experiment):
    config = runs.experiment(experiment)
    validate(config)
    require_trainable(config)
    assert config.is_locked
    with pytest.raises(AttributeError, match="stepz"):
        config.train.stepz = 1


@pytest.mark.parametrize("experiment, preset", PRESETS)
def test_every_preset_is_valid_and_the_papers_is_the_default(experiment, preset):
    make = importlib.import_module(f"configs.{experiment}").get_config
    validate(make(preset))
    require_trainable(make(preset))
    assert (make(preset) == make()) == (preset == "paper")


def test_in_the_codes_preset_the_discriminator_learns_only_once_it_counts():
    for experiment, _ in PRESETS:
        make = importlib.import_module(f"configs.{experiment}").get_config
        ours, theirs = make("paper").discriminator, make("code").discriminator
        assert ours.train_from < ours.start == theirs.start == theirs.train_from
        assert ours.ramp > theirs.ramp == 0


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_header_of_every_experiment_has_a_command_that_parses(experiment, monkeypatch):
    commands = re.compile(r"^ *(python -m mq_jax\.main(?:.*\\\n)*.*)$", re.MULTILINE)
    monkeypatch.chdir(runs.ROOT)
    found = commands.findall(docstring(experiment))
    assert found
    for words in map(shlex.split, found):
        assert words[:4] == ["python", "-m", "mq_jax.main", f"--config=configs/{experiment}.py"]
        assert any(word.startswith("--workdir=") for word in words)
        monkeypatch.setattr("sys.argv", words[2:])
        with flagsaver.flagsaver():
            assert commandline.parse(words[2:]) == ["mq_jax.main"]


def test_the_base_has_exactly_the_fields_that_have_rules():
    assert set(flat(base.get_config().to_dict())) == set(RULES)


# The fields of the first runs; their config.json has these and no others.
FIRST = json.loads((runs.ROOT / "tests" / "fixtures" / "first_config.json").read_text())


def test_a_configuration_of_the_first_runs_is_whole_with_what_was_done_then():
    assert (set(flat(FIRST)) - set(REPLACED)) | set(ADDED) == set(RULES)
    assert not set(flat(FIRST)) & set(ADDED) and set(REPLACED) < set(flat(FIRST))
    config = ConfigDict(completed(FIRST))
    validate(config)
    # Plain vector quantization, with nothing added.
    found = quantizing.make_quantizer(config, nearest_codeword)
    assert isinstance(found, VQ) and found.commitment == found.codebook_weight == 1
    assert (found.terms, found.restart, found.unit) == ((), None, False)


def test_every_field_of_the_base_has_a_comment():
    lines = (runs.ROOT / "configs" / "base.py").read_text().splitlines()
    fields = [line for line in lines if re.match(r" +config(\.\w+)+ = (?!ConfigDict\(\))", line)]
    # The fields of an optimizer are written once and stand in three sections, with a line each.
    shared = sum(name.startswith("inner.") for name in RULES) - 1
    # Those, and that of the quantizers, are sections with a comment.
    assert len(fields) == len(RULES) - 2 * shared + 3 + 1
    assert [line for line in fields if not re.search(r"  # \S", line)] == []


def test_the_base_itself_is_no_experiment():
    with pytest.raises(ValueError, match="data.source is ''; expected one of tfds:NAME, folder"):
        validate(base.get_config())


# Field, a value that it must not have, and what the error says beside both.
BAD_VALUES = [
    ("seed", -1, "a whole number in [0, 2^32)"),
    ("seed", 2**32, "a whole number in [0, 2^32)"),
    ("model.channels", (), "a tuple of positive whole numbers"),
    ("model.channels", (32, 0), "a tuple of positive whole numbers"),
    ("model.channels", (32, 1.5), "a tuple of positive whole numbers"),
    ("model.blocks", -1, "a whole number of at least 0"),
    ("model.init_std", -0.1, "a number in [0, inf)"),
    ("model.kind", "vqgun", "one of vqvae, vqgan"),
    ("model.attention", (0,), "a tuple of positive whole numbers, (16,) or () say"),
    ("model.dtype", "float16", "one of float32, bfloat16"),
    ("train.accumulate", 0, "a whole number of at least 1"),
    ("train.ema_decay", 1.0, "a number in [0, 1)"),
    ("perceptual.net", "vgg19", "one of none, vgg, alex"),
    ("discriminator.start", 1.5, "a number in [0, 1]"),
    ("discriminator.loss", "wasserstein", "one of hinge, non-saturating"),
    ("discriminator.norm", "layer", "one of batch, group, none"),
    ("eval.monitor", "ssim", "one of mse, lpips_alex"),
    ("codebook.kind", "mpl", "one of mlp, mlp-relu, linear, basis, embedding"),
    ("codebook.size", 0, "a whole number of at least 1"),
    ("train.steps", -5, "a whole number of at least 0"),
    ("train.batch_size", 0, "a whole number of at least 1"),
    ("train.outer_data", "halves", "one of other, same, held-out"),
    ("train.hypergradient", "exact", "one of unrolled, unrolled-reverse, sama, identity"),
    ("train.straight_through", "decoder", "one of encoder, encoder-and-codewords"),
    ("train.learning_rate", 0.0, "a number in (0, inf)"),
    ("train.learning_rate", float("nan"), "a number in (0, inf)"),
    ("train.learning_rate", float("inf"), "a number in (0, inf)"),
    ("train.warmup", 1.5, "a number in [0, 1]"),
    ("train.reconstruction", "l2", "one of mse, l1"),
    ("train.log_every", 0, "a whole number of at least 1"),
    ("inner.kind", "adamw", "one of adam, sgd"),
    ("inner.b1", 1.0, "a number in [0, 1)"),
    ("outer.clip", -1.0, "a number in [0, inf)"),
    ("mesh.data", -1, "a whole number of at least 0"),
    ("mesh.fsdp", 0, "a whole number of at least 1"),
    ("data.source", "tfds:", "one of tfds:NAME, folder, parquet, wds, photos"),
    ("data.source", "folders", "one of tfds:NAME, folder, parquet, wds, photos"),
    ("data.train_split", "", "the name of a split"),
    ("data.filter", "lanczos", "one of area, bilinear"),
    ("data.flip", 2.0, "a number in [0, 1]"),
    ("data.max_bad_share", -0.1, "a number in [0, 1]"),
    ("data.threads", -1, "a whole number of at least 0"),
    ("eval.pictures", 0, "a whole number of at least 1"),
    ("quantizer.kind", "fqs", "one of vq, l2, cvq, ema, sqvae, gumbel, ibq, fsq, lfq, bsq"),
    ("quantizer.groups", 0, "a whole number of at least 1"),
    ("quantizer.dropout", 1.5, "a number in [0, 1]"),
    ("quantizer.commitment", -0.5, "a number in [0, inf)"),
    ("quantizer.ema.decay", 1.0, "a number in [0, 1)"),
    ("quantizer.cvq.by", "nearest", "one of closest, probrandom"),
    ("quantizer.sqvae.variance", "II", "one of I, III"),
    ("quantizer.gumbel.temperature", 0.0, "a number in (0, inf)"),
    ("quantizer.gumbel.anneal_steps", 0, "a whole number of at least 1"),
    ("quantizer.ibq.scale", 0.0, "a number in (0, inf)"),
    ("quantizer.fsq.levels", (), "a tuple of 1 to 24 whole numbers from 2 to 1000"),
    ("quantizer.fsq.levels", (8, 1), "a tuple of 1 to 24 whole numbers from 2 to 1000"),
    ("quantizer.lfq.bits", 25, "a whole number from 1 to 24"),
    ("quantizer.bsq.temperature", 0.0, "a number in (0, inf)"),
]


@pytest.mark.parametrize("name, value, expected", BAD_VALUES)
def test_a_bad_value_is_refused_with_its_field_and_what_is_expected(name, value, expected):
    config = runs.set_fields(runs.configure(), {name: value})
    with pytest.raises(ValueError) as caught:
        validate(config)
    message = str(caught.value)
    assert message.startswith(f"config.{name} is {value!r}; expected {expected}")
    assert "\n" not in message


@pytest.mark.parametrize("name", RULES)
def test_a_value_of_the_wrong_type_is_refused(name):
    """Also by rules that take a type for granted, as configurations of other hands may not."""
    config = runs.configure()
    with config.ignore_type():
        runs.set_fields(config, {name: None})
    with pytest.raises(ValueError, match=f"config.{name} is None; expected"):
        validate(config)


@pytest.mark.parametrize("name", ["train.steps", "codebook.size"])
def test_true_is_no_number(name):
    with pytest.raises(ValueError, match=f"config.{name} is True; expected"):
        validate(runs.set_fields(runs.configure(), {name: True}))


# Fields that are right each alone.
CONTRADICTIONS = [
    ({"data.image_size": 30, "model.channels": (4, 8)}, "data.image_size is 30", "multiple of 4"),
    ({"data.eval_image_size": 33}, "data.eval_image_size is 33", "multiple of 2"),
    (
        {"codebook.size": 18, "codebook.shard_lookup": True, "mesh.fsdp": 4},
        "codebook.size is 18",
        "a multiple of config.mesh.fsdp, 4",
    ),
    ({"inner.eps_root": 0.0}, "inner.eps_root is 0.0", "a positive number"),
    ({"model.kind": "vqgan", "model.channels": (8, 8)}, "model.channels is (8, 8)", "one number"),
    (
        {"model.kind": "maskgit", "model.channels": (8, 8)},
        "model.channels is (8, 8)",
        "one number, (128,) say, under model.kind 'maskgit'",
    ),
    (
        {"model.kind": "vqgan", "model.multipliers": (1, 2), "model.groups": 8},
        "model.groups is 8",
        "channels 4 times 1 is 4",
    ),
    (
        {"model.kind": "vqgan", "model.groups": 4, "data.image_size": 24},
        "data.image_size is 24",
        "multiple of 16: config.model.multipliers halves an image 4 times",
    ),
    ({"train.accumulate": 3}, "train.accumulate is 3", "a divisor of config.train.batch_size, 8"),
    ({"eval.monitor": "fid"}, "eval.monitor is 'fid'", "in config.eval.metrics"),
    (
        {"data.image_size": 16, "eval.metrics": ("lpips_alex",)},
        "data.image_size is 16",
        "at least 31 for 'lpips_alex'",
    ),
    (
        {"data.image_size": 16, "discriminator.weight": 0.1},
        "data.image_size is 16",
        "at least 24 for config.discriminator.layers 3",
    ),
    (
        {"data.eval_image_size": 8, "eval.metrics": ("lpips_vgg",)},
        "data.eval_image_size is 8",
        "at least 16",
    ),
    (
        {"discriminator.weight": 0.1, "discriminator.start": 0.8, "discriminator.ramp": 0.3},
        "discriminator.start is 0.8",
        "a sum of at most 1",
    ),
    (
        {"discriminator.weight": 0.1, "discriminator.r1": 1.0},
        "discriminator.r1 is 1.0",
        "norm 'group'",
    ),
    (
        {"model.kind": "vqgan", "model.attention": (17,)},
        "model.attention is (17,)",
        "expected sides among 32, 16, 8, 4, 2",
    ),
    (
        {"discriminator.weight": 0.1, "discriminator.train_from": 0.5},
        "discriminator.train_from is 0.5",
        "at most start",
    ),
    (
        {"inner.eps_root": 0.0, "train.hypergradient": "unrolled-reverse"},
        "inner.eps_root is 0.0",
        "a positive number",
    ),
    (
        {"train.hypergradient": "joint", "train.straight_through": "encoder-and-codewords-inside"},
        "train.straight_through is 'encoder-and-codewords-inside'",
        "train.hypergradient is 'joint'",
    ),
    (
        {"train.hypergradient": "joint", "train.inner_updates": 4},
        "train.inner_updates is 4",
        "train.hypergradient is 'joint'",
    ),
    (
        {"train.hypergradient": "joint", "train.roll_back": True},
        "train.roll_back is True",
        "train.hypergradient is 'joint'",
    ),
    ({"train.unroll": 2}, "train.unroll is 2 and inner_updates 1", "expected at most as many"),
    (
        {"train.unroll": 2, "train.inner_updates": 2, "train.hypergradient": "cg"},
        "train.unroll is 2 with hypergradient 'cg'",
        "expected 1, or 'unrolled'",
    ),
    (
        {"train.unroll": 2, "train.inner_updates": 5},
        "train.steps is 12",
        "expected a multiple of inner_updates, 5",
    ),
    (
        {"train.unroll": 2, "train.inner_updates": 2, "quantizer.restart_every": 5}
        | {"codebook.kind": "embedding"},
        "train.unroll is 2",
        "the codebook must stand still",
    ),
    (
        {"train.roll_back": True, "quantizer.kind": "cvq", "codebook.kind": "embedding"},
        "train.roll_back is True",
        "the codebook must stand still",
    ),
    ({"inner.eps_root": 0.0, "train.hypergradient": "sama"}, "inner.eps_root is 0.0", "positive"),
    (
        {"train.hypergradient": "joint", "train.outer_data": "held-out"},
        "train.outer_data is 'held-out'",
        "train.hypergradient is 'joint'",
    ),
    (
        {"train.hypergradient": "pipelined", "train.outer_data": "same"},
        "train.outer_data is 'same'",
        "train.hypergradient is 'pipelined'",
    ),
    (
        {"train.hypergradient": "pipelined", "train.inner_updates": 2},
        "train.inner_updates is 2, which needs an outer batch of its own",
        "train.hypergradient is 'pipelined'",
    ),
    *(
        (
            {"train.hypergradient": "pipelined", "train.keep_activations": True, **changes},
            f"{name} is {changes[name]!r} with keep_activations",
            f"expected {wanted!r} (",
        )
        for name, wanted, changes in (
            ("train.straight_through", "encoder", {"train.straight_through": "rotation"}),
            ("train.accumulate", 1, {"train.accumulate": 2}),
        )
    ),
    (
        {"inner.eps_root": 0.0, "train.hypergradient": "pipelined"},
        "inner.eps_root is 0.0",
        "a positive number",
    ),
]


@pytest.mark.parametrize("values, given, expected", CONTRADICTIONS)
def test_fields_that_contradict_each_other_are_refused(values, given, expected):
    with pytest.raises(ValueError) as caught:
        validate(runs.set_fields(runs.configure(), values))
    assert f"config.{given}" in str(caught.value) and expected in str(caught.value)


def test_a_finite_difference_in_bfloat16_can_be_read_but_not_trained():
    values = {"train.hypergradient": "finite-difference", "model.dtype": "bfloat16"}
    config = runs.set_fields(runs.configure("photos_mqgan"), values)
    validate(config)
    with pytest.raises(ValueError, match="expected config.model.dtype 'float32', or another"):
        require_trainable(config)
    config.model.dtype = "float32"
    require_trainable(config)


ALLOWED = [
    {"inner.eps_root": 0.0, "train.hypergradient": "none"},
    {"inner.eps_root": 0.0, "inner.kind": "sgd"},
    {"outer.eps_root": 0.0},
    *[{"inner.eps_root": 0.0, "train.hypergradient": k} for k in ("identity", "neumann", "cg")],
    {"train.unroll": 3, "train.inner_updates": 4},
    {"train.roll_back": True, "train.hypergradient": "cg", "train.inner_updates": 2},
    {"model.init_std": 0.0},
    {"data.eval_image_size": 0},
    {"train.learning_rate": 1},
    *[{"train.hypergradient": kind} for kind in mq.HYPERGRADIENTS],
    *[{"train.straight_through": kind} for kind in mq.STRAIGHT_THROUGH],
    *[{"codebook.kind": kind} for kind in codebook.KINDS],
]


@pytest.mark.parametrize("values", ALLOWED)
def test_what_makes_sense_is_allowed(values):
    config = runs.configure()
    with config.ignore_type():
        runs.set_fields(config, values)
    validate(config)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("eval.metrics", ("ssim", "rfid"), "fid"),
        ("eval.metrics", ("LPIPS-vgg",), "lpips_vgg"),
        ("eval.monitor", "rfid", "fid"),
        ("train.hypergradient", "unroled", "unrolled"),
        ("data.source", "photo", "photos"),
        ("data.filter", "Area", "area"),
    ],
)
def test_a_text_that_is_near_to_a_choice_is_told_which(name, value, meant):
    config = runs.set_fields(runs.configure(), {name: value})
    with pytest.raises(
        ValueError, match=rf"config.{name} is .*; expected .* \(did you mean {meant}\?\)\.$"
    ):
        validate(config)


def test_a_text_that_is_near_to_none_and_a_number_are_told_no_other():
    for name, value in (("eval.metrics", ("speed",)), ("eval.metrics", 3), ("data.source", "x")):
        config = runs.configure()
        with config.ignore_type():
            runs.set_fields(config, {name: value})
        with pytest.raises(ValueError, match=f"config.{name} is") as caught:
            validate(config)
        assert "did you mean" not in str(caught.value)


def test_a_missing_field_and_an_unknown_one_are_named_with_the_nearest():
    config = runs.configure().unlock()
    config.train.stepz = 3
    with pytest.raises(ValueError, match=r"train.stepz is unknown \(did you mean config.train.ste"):
        validate(config)
    del config.train.stepz, config.train.steps
    with pytest.raises(ValueError, match="config.train.steps is missing"):
        validate(config)
