"""Data that changed while a run lay still: refused in one line, or accepted and remembered."""

import json

import numpy as np
import pytest
import runs

from mq_jax.data import inputs
from mq_jax.data.contents import Contents
from mq_jax.modes import unchanged
from mq_jax.modes.evaluation import run_evaluation
from mq_jax.modes.training import run_training
from mq_jax.modes.unchanged import accepted_changes, changes_since, keep_to_data, require_alike

FLAG = "--accept_changed_data"


def contents(*names, evaluation=("v",)):
    return {
        "train": Contents("folder", "all", len(names), names, per_image=True),
        "evaluation": Contents("folder", "all", len(evaluation), evaluation, per_image=True),
    }


def trained(folder, step=4):
    (folder / "checkpoints" / str(step)).mkdir(parents=True)


def test_before_the_first_checkpoint_the_data_may_still_change(tmp_path):
    assert keep_to_data(tmp_path, contents("a"), accept=False) == ""
    assert keep_to_data(tmp_path, contents("a", "b"), accept=False) == ""
    trained(tmp_path)
    assert keep_to_data(tmp_path, contents("a", "b"), accept=False) == ""
    assert accepted_changes(tmp_path) == []


@pytest.mark.parametrize(
    "now, told",
    [
        (contents("a", "b"), r"train: 1 images then, 2 now, 1 added \('b'\) and 0 removed\."),
        (contents("b"), r"train: .*1 added \('b'\) and 1 removed \('a'\)"),
        (contents("a", evaluation=("v", "w")), r"evaluation: 1 images then, 2 now"),
        (contents("b", evaluation=("w",)), r"train: .*; evaluation: "),
    ],
)
def test_changed_data_is_refused_with_the_difference_until_it_is_accepted(tmp_path, now, told):
    keep_to_data(tmp_path, contents("a"), accept=True)
    trained(tmp_path)
    before = (tmp_path / "data.json").read_bytes()
    with pytest.raises(ValueError, match=f"trained on: {told}.*{FLAG}\\.$"):
        keep_to_data(tmp_path, now, accept=False)
    assert (tmp_path / "data.json").read_bytes() == before
    assert "after step 4: " in keep_to_data(tmp_path, now, accept=True)
    # Once is enough, and the run remembers it.
    assert keep_to_data(tmp_path, now, accept=False) == ""
    (change,) = accepted_changes(tmp_path)
    assert change.startswith("after step 4: ")


def test_an_evaluation_tells_what_changed_since_the_training_too(tmp_path):
    keep_to_data(tmp_path, contents("a"), accept=False)
    trained(tmp_path)
    keep_to_data(tmp_path, contents("b"), accept=True)
    own = {"evaluation": contents("b")["evaluation"]}
    assert len(changes_since(tmp_path, own)) == len(changes_since(tmp_path, {})) == 1
    grown = {"evaluation": contents("b", evaluation=("v", "w"))["evaluation"]}
    assert changes_since(tmp_path, grown)[1:] == [
        "since the training: evaluation: 1 images then, 2 now, 1 added ('w') and 0 removed"
    ]


def test_a_run_of_before_gets_its_record_when_it_goes_on(tmp_path):
    trained(tmp_path)
    assert changes_since(tmp_path, contents("a")) == []
    assert "no record of its data" in keep_to_data(tmp_path, contents("a"), accept=False)
    with pytest.raises(ValueError, match="1 added"):
        keep_to_data(tmp_path, contents("a", "b"), accept=False)


def test_processes_that_see_other_data_than_the_first_are_refused(monkeypatch):
    require_alike(contents("a"))
    other = np.stack([np.frombuffer(bytes.fromhex(c.digest), "u1") for c in contents("b").values()])
    monkeypatch.setattr(unchanged, "gather", lambda rows: [other, rows])
    with pytest.raises(ValueError, match="sees 1 images for train, not those that process 0 sees"):
        require_alike(contents("a"))


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_a_run_of_before_holds_out_what_it_held_out(tmp_path, monkeypatch, mode):
    config = runs.configure().to_dict()
    del config["data"]["holdout"]
    (tmp_path / "config.json").write_text(json.dumps(config))

    def opened(config):
        raise ValueError(f"holds out {config.data.holdout}")

    monkeypatch.setattr(inputs, "open_split", opened)
    monkeypatch.setattr(inputs, "open_evaluation", opened)
    with pytest.raises(ValueError, match="holds out every-tenth"):
        if mode == "evaluate":
            run_evaluation(tmp_path, runs.configure(), metrics="", weights_dir="")
        run_training(runs.configure(), tmp_path, "", accept_changed_data=False)
