"""Quantizers by one word, in every experiment: whole, valid, and what their lines say they are."""

import importlib
import re

import jax
import numpy as np
import pytest
import runs
from absl import flags
from absl.testing import flagsaver

from configs import mqgan, mqvae, quantizers
from mq_jax import commandline
from mq_jax.runs.workdir import flat
from mq_jax.training.build import build
from mq_jax.training.first import init_state
from mq_jax.training.quantizing import KINDS, make_quantizer
from mq_jax.training.taking import take_sizes
from mq_jax.training.validate import validate

# ml_collections loads a configuration file in a way that Python 3.12 drops.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FLAGS = flags.FLAGS
PRESETS = quantizers.PRESETS
# Of `imported` the quantizer is that of a file.
NO_EXPERIMENTS = ("__init__", "base", "mqvae", "mqgan", "quantizers", "prior", "imported")
EXPERIMENTS = sorted(
    path.stem
    for path in runs.ROOT.glob("configs/*.py")
    if path.stem not in NO_EXPERIMENTS and not path.stem.endswith("_prior")
)
# Those that know the released code's values under a word of its own.
RELEASED = {
    **dict.fromkeys(("ffhq_mqgan", "imagenet_mqgan"), mqgan.PRESETS),
    **dict.fromkeys(
        ("cifar10_mqvae", "celeba_mqvae", "folder_mqvae", "folder_finetune"), mqvae.PRESETS
    ),
}


def experiment(name, *preset):
    config = importlib.import_module(f"configs.{name}").get_config(*preset)
    take_sizes(config)
    return config


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_in_every_experiment_and_changes_the_quantizer_alone(name, preset):
    config, usual = experiment(name, preset), experiment(name)
    validate(config)
    quantizer = make_quantizer(config, None)
    assert (config.codebook.size, config.codebook.dim) == (quantizer.size, quantizer.dim)
    # Bits of a position's codes are about as many as the experiment's, or a multiple for J codes.
    assert abs(np.log2(quantizer.size / usual.codebook.size)) < 0.2
    before = flat(usual.to_dict())
    changed = {field for field, value in flat(config.to_dict()).items() if value != before[field]}
    allowed = {
        *("train.hypergradient", "train.straight_through", "train.reconstruction"),
        *("train.quantization_weight", "model.layer_norm", "outer.learning_rate_ratio"),
    }
    assert {f for f in changed if not f.startswith(("codebook.", "quantizer."))} <= allowed


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_and_its_step_keeps_the_state(preset):
    config = importlib.import_module("configs.photos_mqvae").get_config(preset)
    small = {name: value for name, value in runs.TINY.items() if not name.startswith("codebook.")}
    config = runs.set_fields(config, small)
    take_sizes(config)
    validate(config)
    built = build(config, 100)
    state = jax.eval_shape(lambda: init_state(built, config))
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), np.float32)
    after, metrics = jax.eval_shape(built.train_step, state, images, images)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert "inner/quantization" in metrics


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_code_s_values_are_one_word_away(name):
    config = experiment(name, "code")
    validate(config)
    assert config.model.layer_norm
    assert (config.outer.kind, config.outer.b1) == ("sgd", 0.9)
    assert (config.train.reconstruction, config.train.inner_updates) == ("l1", 4)


def test_every_kind_has_a_preset_and_every_preset_a_line():
    assert {experiment("photos_mqvae", preset).quantizer.kind for preset in PRESETS} == set(KINDS)
    for preset, change in PRESETS.items():
        assert change.__name__ == preset and len(change.__doc__.splitlines()) == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_without_a_word_an_experiment_is_as_it_was_and_an_unknown_one_is_told_the_nearest(name):
    make = importlib.import_module(f"configs.{name}").get_config
    assert make("") == make()
    known = (*RELEASED.get(name, ()), *PRESETS)
    line = f"the preset is 'cvk' (did you mean cvq?); expected one of {', '.join(known)}"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        make("cvk")


def test_a_word_on_the_command_line_is_all_it_takes():
    path = f"{runs.ROOT}/configs/cifar10_mqvae.py"
    with flagsaver.flagsaver():
        assert commandline.parse(["mq_jax.main", f"--config={path}:lfq"]) == ["mq_jax.main"]
        assert FLAGS.config.quantizer.kind == "lfq"
    wrong = runs.cli(f"--config={path}:cvk", "--mode=plan")
    assert wrong.code == 1 and len(wrong.err.splitlines()) == 1
    assert "did you mean cvq?" in wrong.err
