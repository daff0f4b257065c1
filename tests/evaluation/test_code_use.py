"""Few codes in use: said where they are few, with their numbers and a cure that is left."""

import math

import pytest

from configs import base
from mq_jax.evaluation.code_use import Codebook, codebook_of, codes_in_words, few_codes
from mq_jax.modes.table import evaluation_table
from mq_jax.report.names import number
from mq_jax.runs.workdir import flat
from mq_jax.training.account import evaluation_in_words, window_in_words

PLAIN = Codebook(size=1024, kind="mlp", layer_norm=True, learning_rate_ratio=1.0)
MANY = 100_000


def test_the_quick_start_is_told_its_numbers_and_its_cure():
    assert few_codes(PLAIN, 75 / 1024, 51.3, 10_240) == (
        "Few codes are in use: 75 of 1,024 (7.3%); a code has 10 bits and carries 5.7 (perplexity "
        "51.3). A new run may use more with config.model.layer_norm=False; see 'Few codes in use?' "
        "in README.md."
    )


@pytest.mark.parametrize("usage, few", [(0.001, True), (0.24, True), (0.499, True), (0.5, False)])
def test_less_than_a_half_are_few(usage, few):
    assert bool(few_codes(PLAIN, usage, 2.0, MANY)) is few


@pytest.mark.parametrize("size", [1, 16, 1024, 65_536])
def test_nothing_is_said_where_even_uniform_drawing_would_leave_many_out(size):
    """Of K codes n uniform ones have 1 - (1 - 1/K)^n among them: nine tenths at n = K ln 10."""
    codebook = PLAIN._replace(size=size)
    enough = math.ceil(size * math.log(10))
    assert not few_codes(codebook, 0.1, 1.0, 0)
    assert not few_codes(codebook, 0.1, 1.0, enough - 1)
    assert few_codes(codebook, 0.1, 1.0, enough)


CURES = [
    ({}, "config.model.layer_norm=False"),
    ({"layer_norm": False}, "config.outer.learning_rate_ratio=10"),
    ({"layer_norm": False, "learning_rate_ratio": 3.0}, "config.outer.learning_rate_ratio=10"),
    ({"layer_norm": False, "learning_rate_ratio": 10.0}, "config.codebook.size=128"),
    ({"kind": "linear"}, "config.model.layer_norm=False"),
    # A plain codebook gains from a hyper-net first, whatever else it has had.
    ({"kind": "embedding"}, "config.codebook.kind=mlp"),
    ({"kind": "embedding", "learning_rate_ratio": 30.0}, "config.codebook.kind=mlp"),
    ({"quantizer": "l2", "kind": "embedding"}, "config.codebook.kind=mlp"),
    # Which a hyper-net and a restart together are not.
    ({"kind": "embedding", "restart": 100}, "config.model.layer_norm=False"),
    ({"quantizer": "ema"}, "config.quantizer.ema.restart_below=0.5"),
]


@pytest.mark.parametrize("changes, cure", CURES)
def test_the_cure_is_one_that_the_run_has_not_had(changes, cure):
    assert f"with {cure};" in few_codes(PLAIN._replace(**changes), 75 / 1024, 51.3, MANY)


@pytest.mark.parametrize("kind", ["cvq", "sqvae", "gumbel", "ibq", "fsq", "lfq", "bsq"])
def test_of_kinds_without_a_measured_cure_only_the_numbers_are_told(kind):
    told = few_codes(PLAIN._replace(quantizer=kind), 75 / 1024, 51.3, MANY)
    assert told == few_codes(PLAIN, 75 / 1024, 51.3, MANY).partition(" A new run")[0]
    assert told.endswith("(perplexity 51.3).")
    ema = PLAIN._replace(quantizer="ema", restart=0.5)
    assert few_codes(ema, 75 / 1024, 51.3, MANY) == told


def test_the_codes_of_a_position_are_counted_apart_and_each_has_the_bits_of_k():
    """Of 4 x 256, 128 in use, 32 of each level and evenly: log2 32 is 5 bits."""
    levels = PLAIN._replace(size=256, codes=4)
    told = few_codes(levels, 0.125, 128.0, MANY)
    assert "128 of 1,024 (12.5%); a code has 8 bits and carries 5.0 (perplexity 128.0)" in told
    least = levels._replace(layer_norm=False, learning_rate_ratio=10.0)
    assert "config.codebook.size=32;" in few_codes(least, 0.125, 128.0, MANY)


def test_k_that_is_no_power_of_two_has_bits_that_are_no_whole_number():
    assert codes_in_words(PLAIN._replace(size=1000)) == "1,000 (9.966 bits)"
    fields = flat(base.get_config().to_dict()) | {"quantizer.groups": 2, "quantizer.depth": 3}
    assert codes_in_words(codebook_of(fields)) == "1,024 (10 bits), 6 at each position"


@pytest.mark.parametrize("used", [1, 2, 3, 64, 65, 511])
def test_a_smaller_codebook_holds_all_codes_in_use(used):
    codebook = PLAIN._replace(layer_norm=False, learning_rate_ratio=10.0)
    told = few_codes(codebook, used / 1024, 1.0, MANY)
    size = int(told.split("config.codebook.size=")[1].split(";")[0])
    assert used <= size < 1024 and size < max(2 * used, 2)


@pytest.mark.parametrize("usage, shown", [(0.07324, "7.3%"), (0.0, "0.0%"), (1.0, "100.0%")])
def test_usage_is_written_in_one_way_by_all_who_write_it(usage, shown):
    row = {"train/images_per_second": 9.0, "inner/loss": 0.1, "inner/usage": usage}
    assert window_in_words(row) == ["9 images/s", "loss 0.1000", f"usage {shown}"]
    evaluated = {"eval/mse": 0.02512, "eval/usage": usage, "eval/perplexity": 42.81}
    assert evaluation_in_words(evaluated) == f"mse 0.02512  usage {shown}  perplexity 42.81"
    assert number("usage", usage) == shown
    assert evaluation_table({"end": evaluated})[1] == [["end", "0.0251", shown, "42.8"]]
    if usage < 0.5:
        assert f" ({shown}); " in few_codes(PLAIN, usage, 1.0, MANY)
