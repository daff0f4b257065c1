"""A suite of priors: its tables and its page are of nats and bits, not of images."""

import csv
import io
import json
import pathlib

import pytest
import runs
from pages import Page, figure_named
from report_folders import COST, ENVIRONMENT

from mq_jax.runs import workdir
from mq_jax.runs.cost import write_cost
from mq_jax.suites import read_suite
from mq_jax.suites.page import write_comparison
from mq_jax.suites.prediction import predictions
from mq_jax.suites.results import read_results, write_suite
from mq_jax.suites.schedule import schedule
from mq_jax.suites.tables import changes_table, differences_tables, entries_table, runs_table

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

SUITE = str(runs.ROOT / "configs" / "suites" / "cifar10_prior.py")
GIVEN = ["--config.tokens=SET", "--config.train.steps=4"]
NATS = {"decoder": (4.0, 4.2), "masked": (5.0, 4.8), "decoder-classless": (4.1,)}


def rows_of(nats):
    """Four steps; 64 images at 10, 20, ... a second."""
    for step in range(1, 5):
        now = nats + abs(step - 3)
        found = {"step": step, "prior/loss": now, "train/images_per_second": 10.0 * step}
        units = {"nats_per_token": 1, "bits_per_token": 2, "nats_per_pixel": 0.25}
        yield found | {f"eval/{name}": now * unit for name, unit in units.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of three of the suite's entries, as training leaves them."""
    folder, suite = tmp_path_factory.mktemp("suite"), read_suite(SUITE)
    for scheduled in schedule(suite, folder, GIVEN):
        if scheduled.seed < len(NATS.get(scheduled.entry, ())):
            if scheduled.entry == "masked":
                scheduled.config.tokens = "OTHER"
            place = scheduled.folder
            workdir.claim(place, scheduled.config.to_dict())
            rows = rows_of(NATS[scheduled.entry][scheduled.seed])
            (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (place / "environment.json").write_text(json.dumps(ENVIRONMENT))
            write_cost(place, COST)
    write_suite(folder, "cifar10_prior", suite)
    return folder


def texts(table):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_entries_have_nats_and_bits_and_what_a_step_costs(folder):
    results = read_results(folder)
    table = entries_table(results)
    assert table.heads[2:5] == ["Nats per token ↓", "Bits per token ↓", "Nats per pixel ↓"]
    found = texts(table)
    assert found["decoder"][:2] == ["2", "4.1000 ± 0.1414"]
    assert found["decoder"][-3:-1] == ["34.96", "1.00"]
    assert "K" not in runs_table(results).heads
    # Bits have the ratios of nats.
    tables = differences_tables(results)
    titles = [f"Nats per {unit} over that of decoder" for unit in ("token", "pixel")]
    assert [table.title for table in tables] == titles
    assert texts(tables[0])["masked"][0] == "+19.5%"


def test_the_tokens_of_an_entry_are_what_it_changes(folder):
    found = texts(changes_table(read_results(folder)))
    assert found["decoder"] == ["the reference"]
    assert found["decoder-classless"] == ["prior.conditional = false"]
    assert found["masked"] == ["prior.kind = masked, tokens = OTHER"]


def test_the_page_is_of_nats(folder):
    paths = write_comparison(read_results(folder), folder)
    lines = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert len(lines) == 5 and lines[0]["codes"] == "" and lines[0]["bits_per_token"] == "8.0"
    page = Page(paths[2])
    figure = figure_named(page, "Nats per token over time")
    assert len(figure["data"]) == 5 and figure_named(page, "Nats per pixel, every seed")
    assert "MSE" not in page.words and "codebook" not in page.words.lower()


def test_runs_that_are_there_are_finished_and_the_rest_is_predicted(folder):
    scheduled = schedule(read_suite(SUITE), pathlib.Path(folder), GIVEN)
    found = {p.scheduled.name: p for p in predictions(scheduled, read_results(folder).runs)}
    assert found["decoder seed 1"].outcome.state == "finished"
    assert found["decoder seed 2"].seconds == pytest.approx(4 * 128 / 25, rel=0.3)
    assert scheduled[0].lasting(7, folder).config.train.steps == 7


def test_a_field_that_an_entry_has_no_use_for_is_named(tmp_path):
    path = tmp_path / "suite.py"
    suite = f'Suite("{runs.ROOT}/configs/cifar10_prior.py", {{"a": "prior.smoothing=0.0"}})'
    path.write_text(f"from mq_jax.suites import Suite\n\n\ndef get_suite():\n    return {suite}\n")
    with pytest.raises(ValueError, match="entry 'a'.*config.prior.smoothing changes nothing"):
        schedule(read_suite(str(path)), tmp_path)
