"""In which fields runs differ: side by side, older ones by what they did, places left out."""

import json

import pytest
import runs

from mq_jax.runs.differing import ABSENT, differing_fields, shown
from mq_jax.runs.workdir import flat, read_config


def test_what_differs_stands_side_by_side_in_the_order_of_the_runs():
    configs = [
        flat(runs.configure(**changes).to_dict())
        for changes in ({}, {"codebook__size": 32}, {"seed": 1, "codebook__size": 32})
    ]
    found = differing_fields(dict(zip("abc", configs, strict=True)))
    assert found == {"codebook.size": [16, 32, 32], "seed": [0, 0, 1]}
    assert differing_fields({"a": configs[0]}) == differing_fields({}) == {}


def test_where_a_machine_keeps_its_files_is_no_difference():
    changes = {"data__dir": "/a", "perceptual__dir": "/b"}
    configs = {name: runs.configure(**own) for name, own in {"a": {}, "b": changes}.items()}
    assert differing_fields({name: flat(c.to_dict()) for name, c in configs.items()}) == {}


def test_a_run_of_before_differs_by_what_it_did_and_not_by_what_it_did_not_say(tmp_path):
    fields = runs.configure().to_dict()
    for name in ("holdout", "icc"):
        del fields["data"][name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    earlier, today = flat(read_config(tmp_path)), json.loads(json.dumps(runs.configure().to_dict()))
    found = differing_fields({"earlier": earlier, "today": flat(today)})
    assert found == {"data.holdout": ["every-tenth", "hash"], "data.icc": [False, True]}


def test_a_field_that_one_run_lacks_is_shown_as_a_dash():
    assert differing_fields({"a": {"x": None}, "b": {}}) == {"x": [None, ABSENT]}


@pytest.mark.parametrize(
    "value, text", [(ABSENT, "–"), ("mlp", "mlp"), ("", '""'), (True, "true"), ([1, 2], "[1, 2]")]
)
def test_a_value_is_shown_as_the_file_has_it(value, text):
    assert shown(value) == text
