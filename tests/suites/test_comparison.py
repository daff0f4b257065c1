"""Tables and page over runs: their numbers are those of the folders, what is missing is named."""

import csv
import io
import json

import pytest
import runs
from pages import Page, figure_named
from report_folders import COST, make_rows, make_run

from mq_jax.report import is_report
from mq_jax.runs.cost import write_cost
from mq_jax.suites import Suite
from mq_jax.suites.machines import hours, unlike_machines
from mq_jax.suites.outcome import Ending, write_ending
from mq_jax.suites.page import write_comparison
from mq_jax.suites.results import read_results, write_suite
from mq_jax.suites.tables import changes_table, differences_tables, entries_table, runs_table

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

SIZES = runs.ROOT / "configs" / "suites" / "cifar10_size.py"
ENTRIES = ("joint", "none", "large")
# The errors by entry and seed.
ERRORS = {
    "joint": {0: 0.50, 1: 0.60, 2: 0.40},
    "none": {0: 0.49, 1: 0.606, 2: 0.384},
    "large": {0: 0.25},
}


def rows_of(error):
    """Four steps; a step takes 6.4, 3.2, ... seconds of 64 images."""
    return [row | {"eval/mse": error + abs(row["step"] - 3)} for row in make_rows()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three entries, one with a run that failed and one that never began."""
    folder = tmp_path_factory.mktemp("suite")
    changes = {
        "joint": {"train.hypergradient": "joint"},
        "none": {"train.hypergradient": "none"},
        "large": {"train.hypergradient": "joint", "codebook.size": 4096},
    }
    for entry, errors in ERRORS.items():
        for seed, error in errors.items():
            place = folder / entry / f"seed-{seed}"
            given = {**changes[entry], "seed": seed, "train.steps": 4}
            make_run(place, rows=rows_of(error), changes=given)
            (place / "evaluation.json").unlink()
    write_ending(folder / "joint" / "seed-0", Ending(0, 4, 2, 120.0, ""))
    unfinished = folder / "large" / "seed-1"
    make_run(unfinished, rows=rows_of(9.0)[:2], changes={**changes["large"], "train.steps": 4})
    write_ending(unfinished, Ending(1, 2, 1, 3.0, "no space <left>"))
    (folder / "large" / "seed-2").mkdir()
    write_ending(folder / "large" / "seed-2", Ending(1, 0, 1, 3.0, "no data"))
    make_run(folder / "timings" / "joint", changes={"train.steps": 4})
    write_ending(folder / "timings" / "joint", Ending(0, 4, 1, 3600.0, ""))
    entries = dict.fromkeys(ENTRIES, "") | {"later": ""}
    write_suite(folder, "quick", Suite("configs/x.py", entries, reference="joint"))
    return folder


def texts(table):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_means_are_of_finished_seeds_in_the_order_of_the_suite(folder):
    results = read_results(folder)
    table = entries_table(results)
    assert table.heads[:4] == ["entry", "seeds", "PSNR, dB ↑", "MSE ↓"]
    found = texts(table)
    assert list(found) == list(ENTRIES)
    assert found["joint"][0] == "3" and found["joint"][2] == "0.5000 ± 0.1000"
    assert found["large"][0] == "1 of 2" and found["large"][2] == "0.2500"
    marks = {row[0].text: row[3].mark for row in table.rows}
    assert marks == {"joint": "", "none": "", "large": "best"}
    # 64 images at the median of 10, 20, 30 and 40 a second.
    assert found["joint"][-5:-1] == ["2.56", "1.00", "34.96", "1.00"]
    assert results.runs[0].seconds == pytest.approx(64 * (1 / 10 + 1 / 20 + 1 / 30 + 1 / 40))


def test_flops_are_those_of_an_update_as_the_seconds_are(tmp_path):
    kinds = {"one": (1, 1, 0.0), "all": (4, 4, 0.0), "last": (4, 1, 10e9), "half": (4, 2, 10e9)}
    # As runs of before have it, which recorded no FLOPs of the inner level alone.
    kinds |= {"older": (4, 4, None), "not-told": (4, 1, None)}
    for entry, (updates, unroll, inner) in kinds.items():
        fields = {"train.inner_updates": updates, "train.unroll": unroll, "train.steps": 4}
        place = make_run(tmp_path / entry / "seed-0", changes=fields)
        write_cost(place, COST._replace(inner_flops=inner))
    found = texts(entries_table(read_results(tmp_path, "one")))
    flops = {run.entry: run.flops for run in read_results(tmp_path).runs}
    # 34.96 GFLOP a step of both levels, and a step of the inner alone for each other update.
    assert flops == {
        **{"one": 34.96e9, "all": 34.96e9 / 4, "older": 34.96e9 / 4, "not-told": None},
        **{"last": (34.96e9 + 3 * 10e9) / 4, "half": (34.96e9 + 2 * 10e9) / 4},
    }
    assert found["last"][-3:-1] == ["16.24", "0.46"]
    assert found["not-told"][-3:-1] == ["–", "–"]


def test_hours_are_of_all_processes_failed_ones_and_timings_too(folder, tmp_path):
    results = read_results(folder)
    # An hour of timing and two minutes; of the other seeds nothing tells.
    assert hours(results, "joint") == "≥ 1.03" and hours(results, "none") == ""
    assert results.spent["large"] == 6.0 and hours(results) == "≥ 1.03"
    assert texts(entries_table(results))["none"][-1] == "–"
    for seed, seconds in ((0, 5400.0), (1, 1800.0)):
        write_ending(make_run(tmp_path / "all" / f"seed-{seed}"), Ending(0, 4, 1, seconds, ""))
    (tmp_path / "never" / "seed-0").mkdir(parents=True)
    write_ending(tmp_path / "never" / "seed-0", Ending(1, 0, 1, 3600.0, "no data"))
    results = read_results(tmp_path)
    # An entry without a run has no row, and its hours are spent all the same.
    assert hours(results, "all") == "2.00" and hours(results) == "3.00"
    *_, text, page = write_comparison(results, tmp_path)
    for path in (text, page):
        assert "3.00 hours in all" in path.read_text() and "2.00" in path.read_text()


def test_unlike_machines_are_told_beside_the_seconds(folder, tmp_path):
    assert unlike_machines(read_results(folder)) == ""
    machines = {
        "slow": {"devices": {"kind": "cpu", "count": 1}, "cores": 2},
        "fast": {"devices": {"kind": "cpu", "count": 1}, "cores": 64},
        "gpu": {"devices": {"kind": "NVIDIA <H100>", "count": 8}, "cores": 2},
        "same": {"devices": {"kind": "NVIDIA <H100>", "count": 8}, "cores": 4},
        "odd": {"devices": 3},
    }
    for entry, environment in machines.items():
        place = make_run(tmp_path / entry / "seed-0")
        (place / "environment.json").write_text(json.dumps(environment))
    told = (
        "Seconds of unlike machines do not compare (1 x cpu of 64 cores: fast; 8 x NVIDIA <H100>: "
        "gpu, same; 1 x cpu of 2 cores: slow)."
    )
    results = read_results(tmp_path, "slow")
    assert unlike_machines(results) == told
    *_, text, page = write_comparison(results, tmp_path)
    assert told in text.read_text() and told in Page(page).words


def sized(folder, entries):
    """A page over entries, each of a kind and a K, whose usage is another one for each seed."""
    for entry, (kind, size) in entries.items():
        for seed, usage in enumerate((0.25, 0.5)):
            rows = [row | {"eval/usage": usage * 64 / size} for row in make_rows()]
            fields = {"codebook.size": size, "train.hypergradient": kind, "seed": seed}
            make_run(
                folder / entry / f"seed-{seed}", rows=rows, changes=fields | {"train.steps": 4}
            )
    return Page(write_comparison(read_results(folder), folder)[2])


def test_entries_that_differ_in_size_alone_are_joined_by_their_means(tmp_path):
    kinds = ("joint", "none", "unrolled")
    entries = {f"{kind}-{size}": (kind, size) for kind in kinds for size in (64, 128, 256)}
    page = sized(tmp_path, entries | {"sama": ("sama", 64)})
    plot = figure_named(page, "Usage against K")
    assert "in the colour of the first, joins the means" in page.words
    lines = [trace for trace in plot["data"] if trace["mode"] == "lines"]
    # In their order by name, each in the colour of its first; the tenth entry has no other size.
    assert [trace["meta"]["colour"] for trace in lines] == [0, 3, 7]
    for trace in lines:
        assert trace["x"] == [64, 128, 256]
        assert trace["y"] == pytest.approx([0.375, 0.1875, 0.09375])
    points = [trace for trace in plot["data"] if trace["mode"] == "markers"]
    symbols = {trace["name"]: trace["marker"]["symbol"] for trace in points}
    assert symbols["joint-128 seed 0"] == "circle" and symbols["unrolled-256 seed 1"] == "square"


def test_symbols_go_with_dashes_against_usage_too(tmp_path):
    entries = {f"{n:02d}-{size}": ("joint", size) for n, size in enumerate(range(64, 74))}
    page = sized(tmp_path, entries)
    symbols = [t["marker"]["symbol"] for t in figure_named(page, "MSE against usage")["data"]]
    assert symbols == ["circle"] * 16 + ["square"] * 4
    assert "Circles are solid in the line at the top, squares dotted." in page.words
    # Of ten sizes within a factor of two there is nothing to see.
    assert "Usage against K" not in page.words


def test_differences_are_paired_by_seed(folder):
    (table,) = differences_tables(read_results(folder))
    found = texts(table)
    assert list(found) == ["none", "large"]
    assert found["none"][0] == "-1.7%" and found["none"][3] == "0: -2.0%, 1: +1.0%, 2: -4.0%"
    assert found["large"] == ["-50.0%", "–", "–", "0: -50.0%", "–"]
    assert "Student's t" in table.note and "2%" in table.heads[-1]
    (table,) = differences_tables(read_results(folder, "large"))
    assert texts(table)["joint"][0] == "+100.0%"


def test_every_run_and_what_is_missing_are_told(folder):
    results = read_results(folder)
    rows = [[cell.text for cell in row] for row in runs_table(results).rows]
    assert len(rows) == 8 and rows[0][:5] == ["joint", "0", "finished", "4", "1,024"]
    assert rows[0][-1] == "2.0" and rows[-1][:4] == ["large", "1", "failed", "2"]
    assert results.ailments == [
        ("large seed 1", "Failed: no space <left>."),
        ("large seed 2", "Not begun: no data."),
    ]
    assert texts(changes_table(results)) == {
        "joint": ["the reference"],
        "none": ["train.hypergradient = none"],
        "large": ["codebook.size = 4096"],
    }


def test_the_files_hold_the_tables(folder):
    paths = write_comparison(read_results(folder), folder)
    assert [path.name for path in paths] == ["compare.csv", "compare.md", "compare.html"]
    lines = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert len(lines) == 8 and lines[3]["entry"] == "none" and float(lines[3]["mse"]) == 0.49
    assert lines[3]["best_step"] == "3" and lines[3]["wall_seconds"] == ""
    text = paths[1].read_text()
    assert "| none | 3 |" in text and "| joint | the reference |" in text
    assert "* large seed 2: Not begun: no data." in text
    page = Page(paths[2])
    assert is_report(paths[2]) and "Suite quick · mq_jax report" in page.words
    for words in ("0.5000 ± 0.1000", "-1.7%", "scipy.stats", "no space <left>", "34.96"):
        assert words in page.words
    assert "<left>" not in page.source
    assert 'data-theme="dark"' in page.source and "http://" not in page.words
    for title in ("MSE over steps", "MSE over time", "MSE, every seed", "Usage against K"):
        plot = figure_named(page, title)
        assert {trace["meta"]["colour"] for trace in plot["data"]} == {0, 1, 2}
    time = figure_named(page, "MSE over time")["data"][0]
    assert time["x"][-1] == pytest.approx(64 * (1 / 10 + 1 / 20 + 1 / 30 + 1 / 40) / 60)
    seeds = figure_named(page, "MSE, every seed")
    assert [trace["x"] for trace in seeds["data"]][:3] == [[0.5], [0.6], [0.4]]


def test_the_mode_writes_the_tables_over_a_folder(folder):
    outcome = runs.cli("--mode=compare", f"--workdir={folder}", "--reference=none")
    assert outcome.code == 0, outcome.err
    assert "1 of 2" in outcome.out
    assert f"Comparison: {folder}/compare.html" in outcome.out
    assert "MSE over that of none" in outcome.out
    text = (folder / "suite.json").read_text()
    assert json.loads(text)["reference"] == "joint"


@pytest.mark.parametrize(
    "given, told",
    [
        (["--workdir=/nowhere"], "no run of a suite yet"),
        (
            ["--workdir={}", "--reference=jointly"],
            "--reference is 'jointly'; expected one of joint",
        ),
        (["--workdir={}", "--dry_run"], "--dry_run is of a suite"),
        (["--workdir={}", f"--suite={SIZES}", "--images=9"], "--images is of --dry_run"),
        (["--workdir={}", f"--suite={SIZES}", "--images=x"], "--images=x is no whole number"),
        (["--workdir={}", "--config=configs/x.py"], "--config is not of --mode=compare"),
        (["--workdir={}", "--suite=configs/suites/none.py"], "there is no such file"),
        (["--workdir={}", "--config.train.steps=3"], "name its experiment too"),
        (["--suite=configs/suites/cifar10_quick.py"], "--workdir is missing"),
        (["--suite={0}/../../x.py", "--mode=train"], "--suite"),
    ],
)
def test_a_command_that_cannot_be_followed_is_refused_in_one_line(folder, given, told):
    outcome = runs.cli("--mode=compare", *(word.format(folder) for word in given))
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ") and told in line


def test_a_dry_run_lists_what_would_be_run_and_writes_nothing(tmp_path):
    given = ["--mode=compare", f"--suite={SIZES}", f"--workdir={tmp_path / 'new'}", "--dry_run"]
    outcome = runs.cli(*given, "--shard=1/5", "--config.train.steps=7")
    assert outcome.code == 0, outcome.err
    assert runs.table_row(outcome, "joint-1024 seed 0") == [
        *("joint-1024 seed 0", "not begun", "7", "-", "-", "unknown")
    ]
    assert runs.table_row(outcome, "all")[-1] == "3 unknown"
    assert not (tmp_path / "new").exists()
