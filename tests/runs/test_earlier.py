"""Runs of before: what their configurations lack is what was done then."""

import json

import pytest
from ml_collections import ConfigDict

from mq_jax.modes.older import take_over
from mq_jax.runs import earlier, workdir

OLD = {"seed": 0, "data": {"dir": "/a"}}


@pytest.fixture(autouse=True)
def added(monkeypatch):
    monkeypatch.setattr(earlier, "ADDED", {"data.dir": "never", "data.new": False, "later.x": 3})


def test_what_is_lacking_is_completed_and_the_file_stays(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(OLD))
    assert workdir.adopted(tmp_path) == {"data.new": False, "later.x": 3}
    whole = {"seed": 0, "data": {"dir": "/a", "new": False}, "later": {"x": 3}}
    assert workdir.read_config(tmp_path) == whole
    workdir.claim(tmp_path, whole)
    assert json.loads(path.read_text()) == OLD
    with pytest.raises(ValueError, match="data.new: False in the workdir, True now"):
        workdir.claim(tmp_path, {**whole, "data": {"dir": "/a", "new": True}})


def test_a_prior_of_before_is_completed_by_what_priors_gained(monkeypatch):
    monkeypatch.setattr(earlier, "ADDED_TO_PRIORS", {"data.new": 5})
    old = {"prior": {"kind": "masked"}, "data": {"dir": "/a"}}
    assert earlier.completed(old) == {**old, "data": {"dir": "/a", "new": 5}}


def test_what_was_typed_stays_and_is_then_refused(tmp_path):
    workdir.claim(tmp_path, OLD)
    for typed, expected in (((), False), (("data.new",), True)):
        config = ConfigDict({"seed": 0, "data": {"dir": "/a", "new": True}, "later": {"x": 9}})
        take_over(config, tmp_path, typed)
        assert (config.data.new, config.later.x) == (expected, 3)
    with pytest.raises(ValueError, match="data.new: False in the workdir, True now"):
        workdir.claim(tmp_path, config.to_dict())


def test_a_run_of_today_and_a_folder_without_a_run_lack_nothing(tmp_path):
    assert workdir.adopted(tmp_path) == {}
    whole = {"data": {"dir": "/b", "new": True}, "later": {"x": 4}}
    workdir.claim(tmp_path, whole)
    assert workdir.adopted(tmp_path) == {} and workdir.read_config(tmp_path) == whole


def test_arrays_that_came_later_begin_as_the_stored_ones_that_they_name(monkeypatch):
    monkeypatch.setattr(earlier, "ADDED_ARRAYS", {"new/a": "old", "new/b": "gone"})
    wanted = ["old/x/y", "new/a/x/y", "new/a/z", "new/b/x", "new/ab/x/y"]
    # Only what there is to begin with: the rest is another model.
    assert earlier.beginnings(["old/x/y"], wanted) == {"new/a/x/y": "old/x/y"}
    assert earlier.beginnings([*wanted, "old/z"], wanted) == {}


@pytest.mark.parametrize("value, now", [(False, "other"), (True, "held-out")])
def test_a_field_that_another_has_replaced_says_what_it_said(tmp_path, monkeypatch, value, now):
    replaced = {"data.old": ("later.x", {False: "other", True: "held-out"})}
    monkeypatch.setattr(earlier, "REPLACED", replaced)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"seed": 0, "data": {"dir": "/a", "new": True, "old": value}}))
    whole = {"seed": 0, "data": {"dir": "/a", "new": True}, "later": {"x": now}}
    assert workdir.adopted(tmp_path) == {"later.x": now}
    assert workdir.read_config(tmp_path) == whole
    workdir.claim(tmp_path, whole)


def test_halves_of_before_are_what_is_held_out_for_the_outer_level():
    assert earlier.REPLACED["data.disjoint"] == (
        "train.outer_data",
        {False: "other", True: "held-out"},
    )


@pytest.mark.parametrize("value", [3, None, [1]])
def test_a_value_in_the_place_of_a_section_is_damage(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps({**OLD, "data": value}))
    with pytest.raises(ValueError, match="config.json is damaged: data is no section of fields"):
        workdir.read_config(tmp_path)
