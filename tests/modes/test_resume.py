"""A run that is cut off, however, ends as if it had not been: bit for bit."""

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import signal
import threading
from unittest import mock

import jax
import numpy as np
import pytest
import runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mq_jax import report
from mq_jax.devices.sharding import make_mesh
from mq_jax.modes import exporting
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.writers import Writers
from mq_jax.storage import lock
from mq_jax.terminal.console import Progress
from mq_jax.training import restored
from mq_jax.training.lowering import checkpoint_target

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

KILLED = -signal.SIGKILL


# In processes of their own.


def test_an_interrupted_program_saves_says_how_to_go_on_and_ends_as_one_that_was_not(tmp_path):
    _, whole = runs.finished()
    folder = tmp_path / "my run"
    command = [*runs.arguments(**runs.WHOLE), f"--workdir={folder}"]
    for number, steps, reached, workers in [(signal.SIGHUP, 3, 3, 1), (signal.SIGTERM, 4, 7, 0)]:
        command = [*command[:-1], f"--config.data.workers={workers}", command[-1]]
        outcome = runs.program(*command, at=f"step:{steps}", number=number)
        assert (outcome.code, outcome.out) == (0, ""), outcome.err
        assert "Traceback" not in outcome.err and "leaked" not in outcome.err
        assert f"{number.name}: finishing this step, then saving" in outcome.err
        *_, saved, to_go_on = outcome.err.splitlines()
        assert saved == f"{number.name}: saved. To go on:"
        assert shlex.split(to_go_on)[1:] == ["-m", "mq_jax.main", *command]
        assert runs.checkpoint_steps(folder)[-1] == reached
    outcome = runs.program(*command)
    assert outcome.code == 0, outcome.err
    assert "Going on from the checkpoint of step 7" in outcome.err
    runs.assert_same_run(folder, whole)


@pytest.mark.slow
def test_a_program_killed_three_times_ends_as_one_that_was_not(tmp_path):
    _, whole = runs.finished()
    folder = tmp_path / "killed"
    command = [*runs.arguments(**runs.WHOLE), f"--workdir={folder}"]
    start = functools.partial(runs.program, *command)

    # After the first line of training.
    assert start(at="line:3").code == KILLED
    assert [row["step"] for row in runs.metrics(folder)] == [0, 3]
    assert runs.checkpoint_steps(folder) == []
    # In the middle of it. Nobody is left to end the worker processes.
    assert start("--config.data.workers=1", at="step:7").code == KILLED
    assert runs.checkpoint_steps(folder) in ([], [4], [4, 5])
    # With all arrays written, and the checkpoint not yet in its place.
    assert start(at="save:8").code == KILLED
    assert (folder / "checkpoints" / "8.orbax-checkpoint-tmp").is_dir()
    last = start()
    assert last.code == 0 and "Traceback" not in last.err, last.err
    assert re.search(r"Removing \S*/8\.orbax\S*: its save never finished", last.err)

    runs.assert_same_run(folder, whole)
    # TensorBoard shows each number once, too.
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    for name in ("inner/loss", "outer/loss", "eval/mse"):
        rows = [row["step"] for row in runs.metrics(folder) if name in row]
        assert [event.step for event in events.Scalars(name)] == rows


_HANGING = """
import os, signal, sys, threading, time
from mq_jax import main
from mq_jax.data import sources
hanging = threading.Event()

def read(path, reading):
    if len(reads) >= most:
        hanging.set()
        threading.Event().wait()
    reads.append(path)
    return read_image(path, reading)

def press():
    hanging.wait()
    for _ in range(presses):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

most, presses = int(sys.argv.pop(1)), int(sys.argv.pop(1))

reads, read_image, sources.read_image = [], sources.read_image, read
threading.Thread(target=press, daemon=True).start()
main.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "reads, presses, code, said",
    # Before a step has its batches; and behind those of the next steps.
    [(20, 2, 130, "Stopped at once; the same command goes on"), (60, 1, 0, "SIGINT: saved.")],
)
def test_a_program_whose_reads_hang_ends_when_it_is_told_to(tmp_path, reads, presses, code, said):
    images = runs.write_images(tmp_path / "images")
    given = runs.arguments(data__source="folder", data__dir=images, data__threads=2)
    workdir = f"--workdir={tmp_path / 'run'}"
    launched = runs.start(["-c", _HANGING, reads, presses, *given, workdir])
    outcome = runs.outcome(launched)
    assert outcome.code == code, outcome.err
    assert "SIGINT: finishing this step" in outcome.err and said in outcome.err


# In this process.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from beginning to end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert runs.cli(*runs.arguments(), f"--workdir={folder}").code == 0
    return folder


@contextlib.contextmanager
def copied_on_the_way(folder, target):
    """Copies of a run's folder at many moments, as `kill -9` would leave it: yields their list."""
    lock, copies = threading.Lock(), []
    write_scalars, rename = Writers.write_scalars, os.rename

    def copy(moment):
        with lock:
            place = target / f"{len(copies):02d}-{moment}"
            # A file may go while the tree is copied, since the other thread does not wait.
            for _ in range(100):
                try:
                    shutil.rmtree(place, ignore_errors=True)
                    copies.append(shutil.copytree(folder, place))
                    return
                except (shutil.Error, FileNotFoundError):
                    continue

    def write_scalars_and_copy(self, step, scalars):
        write_scalars(self, step, scalars)
        if step in (3, 8):
            copy(f"line-{step}")

    def copy_and_rename(source, destination):
        if re.search(r"/\d+\.orbax-checkpoint-tmp$", str(source)):
            copy(f"save-{os.path.basename(destination)}")
        rename(source, destination)

    with (
        mock.patch.object(Writers, "write_scalars", write_scalars_and_copy),
        mock.patch.object(os, "rename", copy_and_rename),
    ):
        yield copies


def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(tmp_path, whole):
    with copied_on_the_way(tmp_path / "run", tmp_path) as copies:
        runs.train_here(runs.configure(), tmp_path / "run")
    moments = {path.name[3:] for path in copies}
    saves = {f"save-{step}" for step in (4, 5, 8, 10, 12)}
    assert moments == saves | {"line-3", "line-8"}
    for folder in copies:
        assert runs.train_here(runs.configure(), folder) == "finished"
        runs.assert_same_run(folder, whole)


# What no gradient moves and what is drawn: counts, sums and restarts; shares and anchors.
WITH_STATE = {
    "ema": {"quantizer__ema__restart_below": 0.5},
    "cvq": {"codebook__kind": "embedding", "quantizer__cvq__by": "probrandom"},
}


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_a_pipelined_run_goes_on_through_the_step_before(tmp_path, keep):
    config = runs.configure(train__hypergradient="pipelined", train__keep_activations=keep)
    assert runs.train_here(config, tmp_path / "whole") == "finished"
    with runs.signalled_after(7):
        assert runs.train_here(config, tmp_path / "cut") == "SIGTERM"
    arrays, _ = runs.checkpoint(tmp_path / "cut", 7)
    assert [name for name in arrays if name.startswith("state/past/")]
    assert runs.train_here(config, tmp_path / "cut") == "finished"
    runs.assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_a_model_is_read_whatever_its_last_step_left_for_the_next(tmp_path, monkeypatch):
    """Another version of JAX may keep other arrays."""
    config = runs.configure(train__hypergradient="pipelined", train__keep_activations=True)
    assert runs.train_here(config, tmp_path) == "finished"

    def of_another_version(*arguments):
        target = checkpoint_target(*arguments)
        past = target["state"].past
        past = past._replace(residuals=past.residuals[1:])
        return target | {"state": target["state"].replace(past=past)}

    monkeypatch.setattr(restored, "checkpoint_target", of_another_version)
    read = restored.restore(tmp_path, config, make_mesh(1, 1, jax.devices()[:1]))
    arrays, _ = runs.checkpoint(tmp_path, read.step)
    (kernel,) = (
        a for name, a in arrays.items() if name.endswith("params/autoencoder/encoder/Conv_0/kernel")
    )
    np.testing.assert_array_equal(
        read.state.params.autoencoder["encoder"]["Conv_0"]["kernel"], kernel
    )
    assert read.state.past == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITH_STATE)
def test_the_state_of_a_quantizer_goes_on_as_if_nothing_had_been(tmp_path, kind):
    joint = {"quantizer__kind": kind, "train__hypergradient": "joint"}
    config = runs.configure(**joint, **WITH_STATE[kind])
    assert runs.train_here(config, tmp_path / "whole") == "finished"
    with runs.signalled_after(7):
        assert runs.train_here(config, tmp_path / "cut") == "SIGTERM"
    arrays, _ = runs.checkpoint(tmp_path / "cut", 7)
    assert [name for name in arrays if name.startswith("state/quantizer/")]
    assert runs.train_here(config, tmp_path / "cut") == "finished"
    runs.assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_run_interrupted_before_its_first_step_ends_as_one_that_was_not(tmp_path, whole):
    write_scalars = Writers.write_scalars

    def write_scalars_and_signal(self, step, scalars):
        write_scalars(self, step, scalars)
        os.kill(os.getpid(), signal.SIGINT)

    with mock.patch.object(Writers, "write_scalars", write_scalars_and_signal):
        assert runs.train_here(runs.configure(), tmp_path) == "SIGINT"
    assert runs.checkpoint_steps(tmp_path) == [0]
    assert runs.train_here(runs.configure(), tmp_path) == "finished"
    runs.assert_same_run(tmp_path, whole)


def test_a_second_signal_ends_the_program_at_once_without_a_traceback(tmp_path, whole):
    def signal_twice(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    given = [*runs.arguments(), f"--workdir={tmp_path / 'w'}"]
    with mock.patch.object(Progress, "advance", signal_twice):
        outcome = runs.cli(*given)
    assert (outcome.code, outcome.out) == (130, "")
    last = outcome.err.splitlines()[-1]
    assert last == "Stopped at once; the same command goes on from the last checkpoint."
    assert "Traceback" not in outcome.err
    assert runs.cli(*given).code == 0
    runs.assert_same_run(tmp_path / "w", whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_in_the_final_report_ends_with_the_promised_code(
    tmp_path, whole, number, monkeypatch
):
    folder = shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setattr(report, "write_report", lambda *_: os.kill(os.getpid(), number))
    given = [*runs.arguments(), f"--workdir={folder}", "--interrupted_code=75"]
    outcome = runs.cli(*given)
    assert "Traceback" not in outcome.err
    if number == signal.SIGINT:
        assert outcome.code == 130
    else:
        assert outcome.code == 75
        told, command = outcome.err.splitlines()[-2:]
        assert told == f"{number.name}: stopped; what was saved is there. To go on:"
        assert shlex.split(command)[1:] == ["-m", "mq_jax.main", *given]
    assert not (folder / lock.FILE).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_outside_a_training_ends_any_mode_with_one_line(
    tmp_path, whole, number, monkeypatch
):
    folder = shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setattr(exporting, "restore", lambda *_: os.kill(os.getpid(), number))
    for code, given in {128 + number: [], 75: ["--interrupted_code=75"]}.items():
        outcome = runs.cli("--mode=export", f"--workdir={folder}", *given)
        assert (outcome.code, outcome.out) == (code, "")
        line = f"{number.name}: stopped at once; the same command starts again."
        assert outcome.err.splitlines() == [line]
    assert not (folder / lock.FILE).exists()


COMMANDS = {
    "train": [],
    "evaluate": ["--mode=evaluate", "--metrics="],
    "export": ["--mode=export"],
    "report": ["--mode=report"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_where_another_one_does(tmp_path, whole, command):
    folder = shutil.copytree(whole, tmp_path / "run")
    given = [*(COMMANDS[command] or runs.arguments()), f"--workdir={folder}"]
    before = contents(folder), (folder / "train.log").read_bytes()
    with lock.held(folder, "wait"):
        outcome = runs.cli(*given)
        assert (outcome.code, outcome.out) == (1, "")
        line = outcome.err.splitlines()[-1]
        assert outcome.err.count("error: ") == 1
        assert line.startswith(f"error: Another process ({os.getpid()} on ")
        assert f"writes into {folder}; wait until it ends, or " in line
        (folder / lock.FILE).unlink()
        assert (contents(folder), (folder / "train.log").read_bytes()) == before


def test_a_report_of_a_run_that_goes_on_is_written_elsewhere(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    with lock.held(folder, "wait"):
        given = ["--mode=report", f"--workdir={folder}", f"--output={tmp_path}/page.html"]
        assert runs.cli(*given).code == 0 and (tmp_path / "page.html").exists()
        for inside in ("other.html", "deep/er/page.html"):
            outcome = runs.cli(*given[:2], f"--output={folder}/{inside}")
            assert outcome.code == 1 and "elsewhere: --output=FILE" in outcome.err
    assert not (folder / "deep").exists()


def truncate_arrays(folder):
    for path in folder.glob("tree/**/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "truncated arrays": truncate_arrays,
    "no commit marker": lambda folder: (folder / "commit_success.txt").unlink(),
    "an empty folder": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
}


# Reads that were given up are no trouble of the run, and would be printed by Python itself.
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_is_skipped_with_one_line_and_costs_nothing(
    tmp_path, whole, damage
):
    folder = shutil.copytree(whole, tmp_path / "run")
    DAMAGES[damage](folder / "checkpoints" / "12")
    outcome = runs.cli(*runs.arguments(), f"--workdir={folder}")
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if "damaged" in line]
    assert line.startswith(f"Skipping the damaged checkpoint {folder}/checkpoints/12 (")
    assert "Going on from the checkpoint of step 10" in outcome.err
    assert (folder / "checkpoints" / "damaged-12").is_dir()
    runs.assert_same_run(folder, whole)


def test_a_run_with_nothing_but_damage_gets_one_line_and_is_left_alone(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    steps = runs.checkpoint_steps(folder)
    for step in steps:
        truncate_arrays(folder / "checkpoints" / str(step))
    before = (folder / "metrics.jsonl").read_bytes()
    outcome = runs.cli(*runs.arguments(), f"--workdir={folder}")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith("error: ") and "Traceback" not in outcome.err
    assert runs.checkpoint_steps(folder) == steps
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_run_in_a_folder_of_any_legal_name_goes_on_where_it_was(tmp_path, whole):
    folder = tmp_path / "[a]\\n ?*\udcff" / "run"
    with runs.signalled_after(6):
        assert runs.train_here(runs.configure(), folder) == "SIGTERM"
    assert runs.train_here(runs.configure(), folder) == "finished"
    assert metrics_and_pictures(folder) == metrics_and_pictures(whole)
    with Checkpoints(folder / "checkpoints", read_only=True) as saved:
        assert saved.steps and not saved.unreadable_steps


def metrics_and_pictures(folder):
    return runs.metrics(folder), runs.pictures(folder)


def contents(folder):
    """Every file but those that only grow."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    relative = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    # The report's title is the name of the folder; compilation takes its time.
    others = ("tensorboard/", "train.log", "report.html", "cost.json")
    return {k: v for k, v in relative.items() if not k.startswith(others)}


def test_a_finished_run_stays_as_it_is_and_shows_its_table_again(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    outcomes = [runs.cli(*runs.arguments(), f"--workdir={folder}") for _ in range(2)]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert contents(folder) == contents(whole)
    assert "Training finished" in outcomes[0].out and "end (step 12)" in outcomes[0].out
    assert outcomes[0].out == outcomes[1].out
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("eval/mse")] == [0, 4, 8, 12]


def test_another_configuration_is_refused_with_every_field_that_differs(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    before = contents(folder), (folder / "train.log").read_bytes()
    other = {"seed": 1, "train__learning_rate": 0.5, "model__channels": "(8,)"}
    outcome = runs.cli(*runs.arguments(**other), f"--workdir={folder}")
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: {folder} belongs to a run with another configuration (")
    assert "model.channels: [4] in the workdir, [8] now" in line
    assert "seed: 0 in the workdir, 1 now" in line
    assert "train.learning_rate: 0.01 in the workdir, 0.5 now" in line
    assert "steps" not in line
    assert (contents(folder), (folder / "train.log").read_bytes()) == before


def test_where_the_data_lies_and_how_it_is_read_may_differ(tmp_path, whole):
    with runs.signalled_after(6):
        runs.train_here(runs.configure(), tmp_path)
    other = {"data__dir": "/elsewhere", "data__threads": 3}
    assert runs.cli(*runs.arguments(**other), f"--workdir={tmp_path}").code == 0
    runs.assert_same_run(tmp_path, whole)


def test_a_run_whose_folder_of_images_grew_goes_on_only_when_told_to(tmp_path):
    images, folder = tmp_path / "images", tmp_path / "run"
    runs.write_images(images)
    data = {"data__source": "folder", "data__dir": images}
    given = [*runs.arguments(**data), f"--workdir={folder}"]
    with runs.signalled_after(6):
        assert runs.cli(*given).code == 0
    assert len(runs.checkpoint(folder)[1]["extra"]["listing"]) == 64
    # A hash of each path: what is new moves no image across.
    shutil.copy(images / "a" / "000.png", images / "a" / "new.png")
    before = (folder / "train.log").read_bytes()
    outcome = runs.cli(*given)
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert "train: 37 images then, 38 now, 1 added ('a/new.png') and 0 removed." in line
    assert "evaluation" not in line and (folder / "train.log").read_bytes() == before
    outcome = runs.cli(*given, "--accept_changed_data")
    assert outcome.code == 0, outcome.err
    assert "Going on from the checkpoint of step 6" in outcome.err
    log = (folder / "train.log").read_text()
    assert "Going on with data that changed after step 6: train: 37 images then" in log
    assert "Images: train 38 (all but a tenth, by a hash of the path), evaluation 3 (" in log
    assert runs.cli("--mode=evaluate", f"--workdir={folder}", "--metrics=").code == 0
    (change,) = json.loads((folder / "evaluation.json").read_text())["protocol"]["data"]["changes"]
    assert change.startswith("after step 6: train: 37 images then, 38 now")
