"""Running a suite, with a stand-in for training: what is kept, skipped, told and gone on with."""

import json
import sys
import threading
import time
import types

import pytest
import runs

from mq_jax.runs.writers import read_metrics
from mq_jax.storage.lock import held
from mq_jax.suites import Suite
from mq_jax.suites.outcome import (
    ABSENT,
    DIFFERS,
    FAILED,
    FINISHED,
    TAKEN,
    UNFINISHED,
    outcome_of,
    read_ending,
)
from mq_jax.suites.prediction import (
    BY_FLOPS,
    MEASURED,
    UNKNOWN,
    Tracing,
    predictions,
    predictions_table,
)
from mq_jax.suites.results import read_results
from mq_jax.suites.running import run_suite
from mq_jax.suites.schedule import Shard, schedule
from mq_jax.suites.timing import timed

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

STEPS = 40
NOT_ASKED = None

# Writes what training writes, at once; how it goes is said by the name of the entry.
PROGRAM = """
import json, pathlib, signal, sys, time
given = dict(word[2:].split("=", 1) for word in sys.argv[2:])
folder = pathlib.Path(given["workdir"])
entry = folder.parent.name
if entry == "fails":
    print("a line\\nerror: the data is not there", file=sys.stderr)
    sys.exit(1)
configs = json.loads(pathlib.Path(sys.argv[1]).read_text())
config = configs[folder.name if entry == "timings" else entry]
config["seed"] = int(given["config.seed"])
for name in ("steps", "log_every", "eval_every", "checkpoint_every"):
    config["train"][name] = int(given.get("config.train." + name, config["train"][name]))
total, path = config["train"]["steps"], folder / "metrics.jsonl"
(folder / "config.json").write_text(json.dumps(config))
done = sum(1 for _ in path.open()) * 10 if path.exists() else 0
with path.open("a") as file:
    for step in range(done + 10, total + 1, 10):
        row = {"step": step, "train/images_per_second": 32.0 if step > 10 else 1.0}
        if step == total:
            row["eval/mse"] = 0.5 + config["seed"] / 10
        file.write(json.dumps(row) + "\\n")
        file.flush()
        if entry == "waits" and step == 20:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(given["interrupted_code"])))
            (folder / "begun").touch()
            time.sleep(30)
"""


class Interrupt(types.SimpleNamespace):
    """No signal, until one is wanted."""

    requested = False


@pytest.fixture
def suite_in(tmp_path):
    """Makes a suite of entries, and runs it."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    folder = tmp_path / "suite"
    configs = tmp_path / "configs.json"

    def made(entries, **changes):
        suite = Suite(
            experiment=f"{runs.ROOT}/configs/photos_mqvae.py",
            overrides=changes.pop("overrides", f"train.steps={STEPS}"),
            entries={name: f"train.warmup=0.{i}" for i, name in enumerate(entries, 1)},
            **changes,
        )
        scheduled = schedule(suite, folder)
        stored = {run.entry: run.config.to_dict() for run in scheduled}
        configs.write_text(json.dumps(stored))

        def go(interrupt=None, of=scheduled):
            command = [sys.executable, "-IS", str(program), str(configs)]
            return run_suite(of, suite, folder, interrupt or Interrupt(), command)

        return types.SimpleNamespace(suite=suite, runs=scheduled, folder=folder, go=go)

    return made


def states(outcomes):
    return {name: found.state for name, found in outcomes.items()}


def test_a_failed_run_stops_no_other_and_is_tried_again(suite_in):
    made = suite_in(["fails", "works"])
    first = made.go()
    assert states(first) == {"fails seed 0": FAILED, "works seed 0": FINISHED}
    assert first["fails seed 0"].told == "the data is not there"
    again = made.go()
    assert states(again) == states(first) and again["works seed 0"].told == "as it was found"
    assert read_ending(made.folder / "fails" / "seed-0").starts == 2
    ending = read_ending(made.folder / "works" / "seed-0")
    assert (ending.exit_code, ending.step, ending.starts) == (0, STEPS, 1)
    assert 0 <= ending.seconds < 60
    results = read_results(made.folder)
    assert results.entries == ["works"]
    assert results.ailments == [("fails seed 0", "Not begun: the data is not there.")]


def test_a_signal_is_handed_on_and_the_next_start_goes_on(suite_in):
    made = suite_in(["waits", "later"])
    interrupt = Interrupt()
    place = made.folder / "waits" / "seed-0"

    def signalled():
        while not (place / "begun").exists():
            time.sleep(0.01)
        interrupt.requested = True

    thread = threading.Thread(target=signalled)
    thread.start()
    found = made.go(interrupt)
    thread.join()
    assert states(found) == {"waits seed 0": UNFINISHED}
    assert found["waits seed 0"].told == f"step 20 of {STEPS}"
    assert read_ending(place)[:3] == (75, 20, 1)
    assert states(made.go()) == {"waits seed 0": FINISHED, "later seed 0": FINISHED}
    assert read_ending(place)[:3] == (0, STEPS, 2)
    assert [row["step"] for row in read_metrics(place / "metrics.jsonl")] == [10, 20, 30, 40]


def test_a_run_of_another_configuration_is_told_and_left(suite_in):
    made = suite_in(["works"])
    made.go()
    path = made.folder / "works" / "seed-0" / "config.json"
    stored = json.loads(path.read_text())
    # What changes no result may differ, and what an older run lacks is what was done then.
    stored["train"]["log_every"], stored["data"]["dir"] = 7, "elsewhere"
    del stored["quantizer"], stored["data"]["holdout"]
    stored["data"]["icc"] = False
    path.write_text(json.dumps(stored))
    (found,) = made.go().values()
    assert found.state == DIFFERS
    assert found.told.startswith("data.holdout: every-tenth there, hash in the suite; move ")
    assert "quantizer" not in found.told and "log_every" not in found.told
    stored["data"]["holdout"] = "hash"
    path.write_text(json.dumps(stored))
    assert states(made.go()) == {"works seed 0": FINISHED}
    stored["train"]["learning_rate"] = 0.5
    path.write_text(json.dumps(stored))
    found = made.go()
    assert states(found) == {"works seed 0": DIFFERS}
    assert "train.learning_rate: 0.5 there, 0.001 in the suite" in found["works seed 0"].told
    with pytest.raises(FileNotFoundError, match="no run of a suite yet"):
        read_results(made.folder, outcomes=found)


def test_a_run_that_another_process_trains_is_left(suite_in):
    made = suite_in(["works"])
    made.go()
    place = made.folder / "works" / "seed-0"
    (place / "metrics.jsonl").write_text("")
    with held(place, ""):
        assert states(made.go()) == {"works seed 0": TAKEN}
    assert states(made.go()) == {"works seed 0": FINISHED}


def test_a_damaged_folder_stops_no_other(suite_in):
    made = suite_in(["works", "later"])
    made.go()
    (made.folder / "works" / "seed-0" / "config.json").write_text("{")
    assert states(made.go()) == {"works seed 0": FAILED, "later seed 0": FINISHED}


def test_seconds_make_the_same_steps_at_every_start(suite_in):
    made = suite_in(["works"], overrides="train.steps=0", seconds=60.0, seeds=(0, 1))
    assert timed(made.runs[0], made.suite, made.folder) is None
    made.go()
    # A batch of 16 at 32 images a second; the first window, in which it starts, does not count.
    lasting = timed(made.runs[1], made.suite, made.folder)
    assert lasting.config.train.steps == 120 and outcome_of(lasting).state == FINISHED
    timing = made.folder / "timings" / "works"
    assert read_metrics(timing / "metrics.jsonl")[-1]["step"] == made.suite.timing_steps == 60
    before = (timing / "metrics.jsonl").stat().st_mtime_ns
    assert set(states(made.go()).values()) == {FINISHED}
    assert (timing / "metrics.jsonl").stat().st_mtime_ns == before
    assert read_results(made.folder).entries == ["works"]
    (timing / "metrics.jsonl").write_text('{"step": 60}\n')
    assert set(states(made.go()).values()) == {FAILED}
    with pytest.raises(ValueError, match="has no rate of its steps; remove it"):
        timed(made.runs[0], made.suite, made.folder)


def test_time_is_predicted_from_what_was_measured(suite_in):
    made = suite_in(["works", "later", "last"])
    made.go(of=made.runs[:1])
    measured = read_results(made.folder).runs
    found = predictions(made.runs, measured)
    assert [one.origin for one in found] == ["", UNKNOWN, UNKNOWN]
    assert [one.outcome.state for one in found] == [FINISHED, ABSENT, ABSENT]
    # Of twice the FLOPs, 40 steps of half a second take 40 s, and what the first took besides.
    flops = {0.1: 1e9, 0.2: 2e9, 0.3: 1e9}
    tracing = Tracing(lambda config: flops[config.train.warmup], NOT_ASKED)
    found = predictions(made.runs, measured, tracing=tracing)
    beside = measured[0].wall_seconds - measured[0].seconds
    assert [one.origin for one in found] == ["", BY_FLOPS, BY_FLOPS]
    assert found[1].seconds == pytest.approx(40 + max(beside, 0))
    _, rows = predictions_table(found)
    # Of a run that took less than a tenth of a second nothing is recorded.
    spent = f"{found[0].spent / 60:,.1f}" if found[0].spent else "-"
    assert rows[-1][0] == "all" and rows[0][3:] == [spent, "-", "-"]
    # A shard without a measured entry knows of those of the others.
    (one,) = predictions(made.runs, measured, shard=Shard(1, 3), tracing=tracing)
    assert (one.scheduled.entry, one.origin, one.is_least) == ("later", BY_FLOPS, False)
    longer = made.runs[0].lasting(80, made.folder / "longer" / "seed-0")._replace(entry="longer")
    _, found = predictions([made.runs[0], longer], measured)
    assert (found.origin, found.seconds) == (MEASURED, pytest.approx(40 + max(beside, 0)))
    path = made.folder / "works" / "seed-0" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    (made.folder / "works" / "seed-0" / "outcome.json").unlink()
    (found,) = predictions(made.runs[:1], read_results(made.folder).runs)
    assert (found.origin, found.seconds, found.outcome.state) == (MEASURED, 5.0, UNFINISHED)
    # What it takes beside its steps nothing tells any more.
    assert found.is_least and found.spent == 0
