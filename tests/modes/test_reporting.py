"""Pages and tables over several runs: where they go, what they replace, what differs."""

import json

import pytest
import runs
from report_folders import make_evaluation, make_run

from mq_jax.modes.comparing import compare_evaluations


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Two runs, seen from a folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return make_run(tmp_path / "a"), make_run(tmp_path / "b", changes={"codebook.size": 512})


def test_a_report_over_several_runs_asks_where_it_goes(pair, tmp_path):
    outcome = runs.cli("--mode=report", *pair)
    assert (outcome.code, outcome.out) == (1, "") and len(outcome.err.splitlines()) == 1
    assert "belongs into none of their folders; say where it goes: --output=FILE" in outcome.err
    assert list((tmp_path / "here").iterdir()) == []


UNPLACED = (
    ["--mode=report", "--workdir={}"],
    ["--mode=report", "{}"],
    ["--mode=report", "{}", "{}/../b"],
    ["--mode=evaluate", "--compare", "{}", "{}/../b"],
    ["--mode=evaluate", "--workdir={}", "--metrics="],
    ["--mode=export", "--workdir={}"],
    ["--workdir={}", "--config.data.source=folder"],
)


@pytest.mark.parametrize("given", UNPLACED)
def test_no_command_leaves_anything_where_it_is_started(given, pair, tmp_path):
    runs.cli(*[argument.format(pair[0]) for argument in given])
    assert list((tmp_path / "here").iterdir()) == []


def test_an_evaluation_that_is_not_there_is_named_with_its_command(pair):
    whole = {"": "", "evaluation.json": "", "evaluations/x": " --name=x"}
    for name, command in whole.items():
        (pair[0] / "evaluation.json").unlink(missing_ok=True)
        outcome = runs.cli("--mode=evaluate", "--compare", pair[1], pair[0] / name)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.endswith(f"--mode=evaluate --workdir={pair[0]}{command}\n")


def test_a_report_replaces_reports_alone(pair, tmp_path):
    first, second = pair
    place = tmp_path / "page.html"
    for _ in range(2):
        assert runs.cli("--mode=report", first, second, f"--output={place}").code == 0
    place.write_text("mine")
    for path in (place, first / "config.json", second / "metrics.jsonl"):
        before = path.read_bytes()
        outcome = runs.cli("--mode=report", first, f"--output={path}")
        assert (outcome.code, outcome.out) == (1, "")
        assert "is there and no report of this program" in outcome.err
        assert path.read_bytes() == before


def test_the_place_of_a_run_s_own_report_takes_no_other(pair):
    first, second = pair
    place = first / "report.html"
    for folders in ([second], [first, second], [second, first]):
        outcome = runs.cli("--mode=report", *folders, f"--output={place}")
        assert (outcome.code, outcome.out) == (1, "") and not place.exists()
        assert "is the place of that run's own report; give another --output" in outcome.err
    assert runs.cli("--mode=report", f"--workdir={first}", f"--output={place}").code == 0
    assert place.exists()


def test_a_comparison_says_what_differs_above_its_numbers(pair, capsys):
    compare_evaluations([str(folder) for folder in pair], unlike_too=False)
    out = capsys.readouterr().out
    above, below = out.split("Evaluations\n")
    assert above.startswith("Fields that differ\n")
    (line,) = [line for line in above.splitlines() if "codebook.size" in line]
    assert line.split()[-2:] == ["1024", "512"] and "0.0123" in below


def test_a_comparison_takes_named_evaluations_and_files_of_any_origin(pair, tmp_path, capsys):
    first, second = pair
    place = first / "evaluations" / "test"
    place.mkdir(parents=True)
    (place / "evaluation.json").write_text(json.dumps(make_evaluation()))
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps(make_evaluation()))
    compare_evaluations([str(place), str(second), str(alone)], unlike_too=False)
    out = capsys.readouterr().out
    assert "a/test, step 3" in out and "codebook.size" in out
    assert "alone.json lies in no run's folder: in which fields it differs is not known." in out
    compare_evaluations([str(first), str(place)], unlike_too=False)
    assert "differ in no field" in capsys.readouterr().out
