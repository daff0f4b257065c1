"""cost.json: read as it was written, damage named."""

import json

import pytest

from mq_jax.runs.cost import FILE, Cost, read_cost, write_cost

COST = Cost({"autoencoder": 3, "codebook": 4}, 5e9, 1.5, 64, 16, 4)


@pytest.mark.parametrize("cost", [COST, COST._replace(flops=None), COST._replace(inner_flops=2e9)])
def test_it_is_read_as_it_was_written(tmp_path, cost):
    write_cost(tmp_path, cost)
    assert read_cost(tmp_path) == cost
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_of_before_tells_nothing_of_the_inner_level_alone(tmp_path):
    stored = COST._replace(inner_flops=2e9)._asdict()
    del stored["inner_flops"]
    (tmp_path / FILE).write_text(json.dumps(stored))
    assert read_cost(tmp_path) == COST


def test_a_missing_file_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_cost(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": [3, 4]},
        {"parameters": {"autoencoder": "3"}},
        {"flops": "much"},
        {"inner_flops": "much"},
        {"devices": None},
        {"state_bytes": -1},
        {"compile_seconds": float("nan")},
        {"unknown": 1},
    ],
)
def test_damage_is_named(tmp_path, change):
    (tmp_path / FILE).write_text(json.dumps({**COST._asdict(), **change}))
    with pytest.raises(ValueError, match="cost.json is damaged .*; the training command"):
        read_cost(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
def test_a_file_of_another_kind_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match="cost.json is damaged"):
        read_cost(tmp_path)
