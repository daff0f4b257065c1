"""What a suite will take: steps of epochs, budgets, and a bound where nothing was measured."""

import json
import re

import pytest
import runs
from report_folders import make_run

from mq_jax.data import inputs
from mq_jax.modes import predicting
from mq_jax.runs.listing import Recorded, write_recorded
from mq_jax.suites import Suite
from mq_jax.suites.outcome import Ending, write_ending
from mq_jax.suites.prediction import (
    BUDGET,
    PRODUCT,
    UNKNOWN,
    Tracing,
    predictions,
    predictions_table,
    totals,
)
from mq_jax.suites.results import read_results
from mq_jax.suites.schedule import schedule
from mq_jax.suites.timing import timing_of
from mq_jax.training.build import total_steps

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

PHOTOS = f"{runs.ROOT}/configs/photos_mqvae.py"
EPOCHS = ("--config.train.steps=0", "--config.train.epochs=2")
ENTRIES = {"joint": "train.hypergradient=joint", "none": "train.hypergradient=none"}


def make(overrides="train.steps=100", **changes):
    return Suite(PHOTOS, ENTRIES, overrides=overrides, **changes)


def dry_run(folder, *given, suite="photos"):
    """What a dry run of a suite says."""
    path = runs.ROOT / "configs" / "suites" / f"{suite}.py"
    words = [f"--suite={path}", f"--workdir={folder}", "--dry_run", *given]
    outcome = runs.cli("--mode=compare", *words)
    assert outcome.code == 0, outcome.err
    return outcome


def test_epochs_are_of_the_images_that_the_data_has_or_that_are_given(tmp_path, monkeypatch):
    config, opened = runs.experiment("photos_mqvae"), []
    config.train.update(steps=0, epochs=2)
    whole = inputs.open_training
    monkeypatch.setattr(inputs, "open_training", lambda c: opened.append(c) or whole(c))
    steps = total_steps(config, len(whole(config).autoencoder))
    outcome = dry_run(tmp_path / "new", *EPOCHS)
    assert runs.table_row(outcome, "joint seed 0")[2] == f"{steps:,}"
    # Nine runs on one data set.
    assert len(opened) == 1
    outcome = dry_run(tmp_path / "new", *EPOCHS, "--images=4000")
    given = total_steps(config, 4000)
    assert runs.table_row(outcome, "none seed 2")[2] == f"{given:,}" != f"{steps:,}"
    assert len(opened) == 1


def test_where_the_data_is_not_there_a_run_on_it_tells_or_one_says_so(tmp_path):
    away = ("--config.data.source=folder", "--config.data.dir=/nowhere", *EPOCHS)
    outcome = dry_run(tmp_path / "suite", *away)
    assert runs.table_row(outcome, "joint seed 0")[2:] == ["-", "-", "-", "unknown"]
    assert outcome.out.count("Or give --images=N: config.train.epochs is 2") == 1
    place = tmp_path / "suite" / "joint" / "seed-0"
    make_run(
        place, changes={"data.source": "folder", "train.steps": 4, "data.train_split": "train"}
    )
    facts = {"origin": "folder", "rule": "", "images": 4000, "sha256": "0" * 64}
    write_recorded(place, Recorded({"train": facts}, {}, []))
    outcome = dry_run(tmp_path / "suite", *away)
    config = runs.experiment("photos_mqvae")
    config.train.update(steps=0, epochs=2)
    assert runs.table_row(outcome, "none seed 0")[2] == f"{total_steps(config, 4000):,}"
    assert "Or give" not in outcome.out


def test_a_budget_is_no_measurement_and_its_timings_are_listed(tmp_path):
    outcome = dry_run(tmp_path / "new", "--shard=0/39", suite="cifar10_time")
    assert runs.table_row(outcome, "timings/joint seed 0")[2:] == ["60", "-", "-", "unknown"]
    assert runs.table_row(outcome, "joint seed 0")[2:] == ["-", "-", "at least 5.0", BUDGET]
    assert runs.table_row(outcome, "all")[1:] == ["-", "at least 5.0", "1 unknown"]
    assert "In all so far 0.00 h, left at least 0.08 h" in outcome.out


def test_of_a_budget_there_is_left_the_share_of_the_steps(tmp_path):
    suite = make("train.steps=0", seconds=60.0)
    whole = schedule(suite, tmp_path)
    begun = whole[0].lasting(8, whole[0].folder)
    make_run(begun.folder)
    write_ending(begun.folder, Ending(75, 4, 1, 33.0, ""))
    runs_of = [begun, whole[1]]
    timings = [timing_of(whole[1], suite, tmp_path)]
    found = predictions(runs_of, [], budget=60.0, timings=timings)
    assert [one.origin for one in found[:1]] == [UNKNOWN] and found[0].seconds is None
    # A folder of another configuration is left as it is.
    assert [one.seconds for one in found[1:]] == [0.0, 60.0]
    assert [one.spent for one in found[1:]] == [33.0, 0.0]
    stored = json.loads(json.dumps(begun.config.to_dict()))
    (begun.folder / "config.json").write_text(json.dumps(stored))
    found = predictions(runs_of, [], budget=60.0)
    # Four of its eight steps are done.
    assert [(one.seconds, one.origin) for one in found] == [(30.0, BUDGET), (60.0, BUDGET)]
    assert totals(found) == (33.0, 90.0, True)


def test_without_a_measured_entry_a_step_takes_at_least_its_product(tmp_path):
    whole = schedule(make(), tmp_path)
    flops = {"joint": 2e9, "none": 3e9}
    tracing = Tracing(lambda config: flops[config.train.hypergradient], lambda config: 1e9)
    found = predictions(whole, [], tracing=tracing)
    assert [(one.seconds, one.origin, one.is_least) for one in found] == [
        (200.0, PRODUCT, True),
        (300.0, PRODUCT, True),
    ]
    _, rows = predictions_table(found)
    assert rows[-1] == ["all", "", "", "-", "at least 8.3", ""]
    # Once an entry was measured it says how fast FLOPs are here.
    make_run(whole[0].folder)
    measured = read_results(tmp_path).runs
    rate = measured[0].seconds_per_step
    found = predictions(whole, measured, tracing=tracing._replace(roof=None))
    assert found[1].seconds == pytest.approx(100 * rate * 3 / 2)


def test_the_product_is_told_with_the_device_and_timed_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(predicting, "_flops", lambda config: 6e9)
    monkeypatch.setattr(predicting, "_product_rate", lambda dtype: asked.append(dtype) or 2.0)
    monkeypatch.setattr(predicting.jax, "device_count", lambda: 3)
    outcome = dry_run(tmp_path / "new", "--count_flops", "--config.train.steps=60")
    # 60 steps of 6 GFLOP, at 2 GFLOP/s on each of three devices.
    assert runs.table_row(outcome, "joint seed 0")[-2:] == ["at least 1.0", PRODUCT]
    assert set(asked) == {"float32"}
    assert re.search(f"{PRODUCT}: no step was measured here.* 3 x cpu", outcome.out)
