"""Writing for people never fails the work: runs whose readers go, evaluations that nobody sees."""

import errno
import html
import io
import json
import os
import re
import shutil
import signal

import pytest
import runs
from report_folders import make_run

from mq_jax.evaluation.protocol import read_evaluation
from mq_jax.modes import training
from mq_jax.runs.snapshot import read_snapshot
from mq_jax.runs.standing import write_settled

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


class FullDisk(io.StringIO):
    """Standard output in a file on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


class Ascii(io.StringIO):
    """A terminal of another age."""

    encoding = "ascii"

    def write(self, text):
        return super().write(text.encode("ascii").decode())


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A copy of a finished run; what is kept between programs is this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(runs.finished()[1], tmp_path / "run")


@pytest.mark.parametrize(
    "mode, disk",
    [("evaluate", FullDisk), ("evaluate", Ascii), ("export", FullDisk), ("report", FullDisk)],
)
def test_what_was_computed_is_kept_where_standard_output_takes_nothing(mode, disk, finished):
    left = {"evaluate": "evaluation.json", "export": "export", "report": "report.html"}[mode]
    if mode == "report":
        (finished / left).unlink()
    given = [f"--mode={mode}", f"--workdir={finished}", "--metrics="]
    outcome = runs.cli(*given, out=disk())
    assert outcome.code == 0
    lost = "Standard output cannot be written to (No space left on device); going on without it\n"
    said = runs.IMAGES if mode == "evaluate" else ""
    assert outcome.err == said + (lost if disk is FullDisk else "")
    assert (finished / left).exists() and bool(outcome.out) == (disk is Ascii)


def test_the_numbers_of_an_evaluation_are_printed_where_their_files_cannot_be_written(
    finished, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mq_jax.modes.evaluation.write_snapshot", full)
    outcome = runs.cli("--mode=evaluate", f"--workdir={finished}", "--metrics=")
    assert outcome.code == 1
    assert outcome.err == f"{runs.IMAGES}error: [Errno 28] No space left on device\n"
    assert f"{read_evaluation(finished)['metrics']['mse']:.4f}" in outcome.out


@pytest.mark.slow
def test_a_training_goes_on_without_what_only_people_look_at(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.__init__", full)
    monkeypatch.setattr("mq_jax.training.train.write_snapshot", full)
    monkeypatch.setattr("mq_jax.training.loop.write_cost", full)
    monkeypatch.setattr("mq_jax.modes.training.write_report", full)
    outcome = runs.cli(*runs.arguments(), f"--workdir={tmp_path / 'w'}", out=FullDisk())
    assert outcome.code == 0, outcome.err
    assert runs.checkpoint_steps(tmp_path / "w")[-1] == 12
    log = (tmp_path / "w" / "train.log").read_text()
    assert log.count("TensorBoard's events cannot be written (No space left on device)") == 1
    # Each evaluation but that of step 0 was the best when it came.
    assert log.count("snapshot.npz cannot be written") == log.count(".png cannot be written") - 1
    assert log.count("cost.json cannot be written") == 1
    assert log.count("The report could not be written") == 1
    assert "Standard output cannot be written to" in log
    assert "Traceback" not in outcome.err + log


@pytest.mark.slow
@pytest.mark.parametrize("number", [None, signal.SIGINT])
def test_a_run_whose_reader_goes_ends_as_any_other(number, tmp_path):
    """As under `2>&1 | tee`, whose reader a Ctrl-C ends before it reaches the run."""
    given = [*runs.arguments(**runs.WHOLE), f"--workdir={tmp_path}"]
    launched = runs.launch(*given)
    for line in launched.stderr:
        if line.startswith("step 3/12"):
            break
    launched.stderr.close()
    launched.stdout.close()
    if number is not None:
        os.killpg(launched.pid, number)
    assert launched.wait(timeout=300) == 0
    log = (tmp_path / "train.log").read_text()
    assert "Standard error cannot be written to (Broken pipe)" in log and "Traceback" not in log
    if number is not None:
        assert ("SIGINT: saved" in log) == (runs.checkpoint_steps(tmp_path)[-1] < 12)
        assert runs.program(*given).code == 0
    runs.assert_same_run(tmp_path, runs.finished()[1])


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_evaluation_into_a_full_file_exits_as_promised(stream, finished):
    with open("/dev/full", "w") as full:
        given = ["--mode=evaluate", "--metrics=", f"--workdir={finished}"]
        outcome = runs.outcome(runs.launch(*given, streams={stream: full}))
    assert outcome.code == 0
    said = f"{outcome.out}{outcome.err}"
    assert "Traceback" not in said and "Exception ignored" not in said
    assert read_evaluation(finished)["run"]["step"] == read_snapshot(finished).step


def test_a_run_without_a_single_good_evaluation_ends_with_a_summary(tmp_path, capsys, caplog):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval/mse": null}\n')
    training.sum_up(tmp_path, "finished", "eval/mse")
    out = capsys.readouterr().out
    assert out.startswith(f"Training finished: {tmp_path}\n") and "best" not in out
    assert "The report could not be written" in caplog.text


def test_the_summary_names_the_true_end_and_the_best_of_the_checkpoints(tmp_path, capsys):
    values = {0: 0.1, 2: 0.4, 4: 0.6, 5: 0.55, 6: None}
    rows = [{"step": step, "eval/mse": value} for step, value in values.items()]
    lines = [json.dumps(row) + "\n" for row in [*rows, {"step": 7, "inner/loss": 1.0}]]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    for settled, best in ((1, "best (step 2) 0.4000"), (4, "best (step 5) 0.5500")):
        write_settled(tmp_path, settled)
        training.sum_up(tmp_path, "finished", "eval/mse")
        out = re.sub("[ │|]+", " ", capsys.readouterr().out)
        for row in ("start (step 0) 0.1000", "end (step 6) -", best):
            assert row in out


def test_few_codes_are_said_below_the_table_as_in_the_report(tmp_path, capsys):
    use = {"eval/mse": 0.5, "eval/usage": 0.25, "eval/perplexity": 2.8}
    run = make_run(tmp_path / "run", rows=[{"step": 1, **use}], changes={"codebook.size": 16})
    training.sum_up(run, "finished", "eval/mse")
    told = capsys.readouterr().out
    (sentence,) = [line for line in told.splitlines() if line.startswith("Few codes are in use: 4")]
    assert told.index("25.0%") < told.index(sentence) < told.index("Report: ")
    assert sentence in html.unescape((run / "report.html").read_text())
