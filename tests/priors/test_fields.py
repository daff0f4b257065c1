"""What a prior's configuration may hold, and that every experiment holds it."""

import ast
import re
import shlex

import pytest
import runs
from absl.testing import flagsaver

from configs import prior
from mq_jax import commandline
from mq_jax.priors.fields import RULES, validate
from mq_jax.runs.earlier import completed
from mq_jax.runs.stages import is_prior
from mq_jax.runs.workdir import flat

# ml_collections loads a configuration file in a way that Python 3.12 drops.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

EXPERIMENTS = sorted(path.stem for path in (runs.ROOT / "configs").glob("*_prior.py"))


def test_there_are_experiments():
    names = ("celeba", "cifar10", "ffhq", "imagenet", "photos")
    assert [f"{name}_prior" for name in names] == EXPERIMENTS


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_valid_locked_and_of_the_second_stage(experiment):
    config = runs.experiment(experiment)
    validate(config)
    assert config.is_locked and is_prior(config) and is_prior(flat(config.to_dict()))
    # Nothing that only the first stage has is taken for missing.
    assert completed(config.to_dict()) == config.to_dict()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_header_of_every_experiment_has_a_command_that_parses(experiment, monkeypatch):
    text = (runs.ROOT / "configs" / f"{experiment}.py").read_text()
    commands = re.compile(r"^ *(python -m mq_jax\.main(?:.*\\\n)*.*)$", re.MULTILINE)
    monkeypatch.chdir(runs.ROOT)
    (found,) = commands.findall(ast.get_docstring(ast.parse(text)))
    words = shlex.split(found)
    assert words[2:4] == ["mq_jax.main", f"--config=configs/{experiment}.py"]
    assert {word.partition("=")[0] for word in words[4:]} >= {"--workdir", "--config.tokens"}
    monkeypatch.setattr("sys.argv", words[2:])
    with flagsaver.flagsaver():
        assert commandline.parse(words[2:]) == ["mq_jax.main"]


def test_the_base_has_exactly_the_fields_that_have_rules():
    assert set(flat(prior.get_config().to_dict())) == set(RULES)
    assert not is_prior(runs.experiment("photos_mqvae"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "prior.kind",
            "masekd",
            "config.prior.kind is 'masekd'; expected one of autoregressive, m",
        ),
        ("train.warmup", 2.5, r"config.train.warmup is 2.5; expected a number in \[0, 1\]"),
        ("tokens", "gs://bucket/set", "config.tokens is 'gs://bucket/set', an address"),
        ("prior.heads", 7, "expected the width to be a multiple of 4 heads"),
    ],
)
def test_a_wrong_field_is_named(field, value, message):
    config = runs.set_fields(runs.experiment("photos_prior"), {field: value})
    with pytest.raises(ValueError, match=message):
        validate(config)


def test_an_unknown_field_is_refused():
    config = runs.experiment("photos_prior")
    with config.unlocked():
        config.train.stepz = 1
    with pytest.raises(
        ValueError, match="config.train.stepz is unknown.*fields of configs/prior.py"
    ):
        validate(config)
