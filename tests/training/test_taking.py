"""Kinds that make K and D of their own fields give them to all who read a configuration."""

import json

import pytest
import runs
from ml_collections import ConfigDict

from configs import base
from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.runs.workdir import flat
from mq_jax.training.quantizing import KINDS, make_quantizer
from mq_jax.training.taking import take_sizes

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

MADE = {
    "fsq": ({"quantizer.fsq.levels": (7, 5)}, (35, 2)),
    "lfq": ({"quantizer.lfq.bits": 9}, (512, 9)),
    "bsq": ({"quantizer.bsq.bits": 6, "quantizer.groups": 3}, (64, 18)),
    "vq": ({"codebook.size": 100, "codebook.dim": 6, "quantizer.groups": 3}, (100, 6)),
    "ema": ({"codebook.size": 100, "codebook.dim": 6}, (100, 6)),
}


def taken(**values):
    config = runs.set_fields(base.get_config(), {"data.source": "photos", **values})
    take_sizes(config)
    return config


@pytest.mark.parametrize("kind", MADE)
def test_sizes_are_those_that_the_kind_makes_and_else_as_given(kind):
    fields, sizes = MADE[kind]
    config = taken(**{"quantizer.kind": kind}, **fields)
    assert (config.codebook.size, config.codebook.dim) == sizes
    assert config.is_locked


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantizer.kind": "fsqq"},
        {"quantizer.lfq.bits": -1, "quantizer.kind": "lfq"},
        {"quantizer.fsq.levels": (), "quantizer.kind": "fsq"},
        {"quantizer.groups": 0, "quantizer.kind": "bsq"},
    ],
)
def test_a_wrong_field_is_left_to_be_refused(wrong):
    config = taken(**wrong)
    assert flat(config.to_dict()) == {
        **flat(base.get_config().to_dict()),
        "data.source": "photos",
        **wrong,
    }


ALONE = ("--config.quantizer.kind=fsq", "--config.train.hypergradient=joint")


def test_one_word_and_joint_are_a_whole_configuration():
    experiment = f"--config={runs.ROOT}/configs/photos_mqvae.py"
    planned = runs.cli(experiment, *ALONE, "--mode=plan", "--devices=1", "--nocompile")
    assert planned.code == 0, planned.err
    assert "K = 1,000, D = 4" in planned.out
    # What an MQVAE's plan adds, whose convolutions a CPU filters by Winograd's way.
    assert "Of most 3x3 convolutions a CPU's program" in planned.out


def test_the_word_alone_is_refused_in_one_line_with_what_to_change():
    given = [*runs.arguments(quantizer__kind="fsq"), "--mode=plan", "--devices=1", "--nocompile"]
    refused = runs.cli(*given)
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith(
        "error: config.train.hypergradient is 'unrolled'"
    )
    assert "expected 'joint'." in refused.err


def test_a_given_size_that_the_kind_makes_itself_is_told_to_change_nothing():
    given = [*ALONE, "--config.codebook.size=64", "--config.model.dtype=f", "--mode=plan"]
    told = runs.cli(f"--config={runs.ROOT}/configs/photos_mqvae.py", *given)
    assert told.err.splitlines()[0].startswith(
        "config.codebook.size changes nothing: config.quantizer.kind is 'fsq' and wins"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_configuration_makes_the_same_quantizer_as_the_one_that_was_given(kind):
    """JSON has lists in the place of tuples."""
    given = taken(**{"quantizer.kind": kind, "codebook.kind": "embedding"})
    stored = ConfigDict(json.loads(json.dumps(given.to_dict())))
    made = [make_quantizer(config, nearest_codeword) for config in (given, stored)]
    assert made[0] == made[1] and hash(made[0]) == hash(made[1])
