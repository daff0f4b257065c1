"""The page says of which images its pictures are, what else was evaluated, and what differs."""

import json

import pytest
from pages import page_of
from report_folders import make_evaluation, make_run, make_snapshot

from mq_jax.report import is_report, write_report
from mq_jax.report.evaluations import others_table, pictured
from mq_jax.report.runs import read_runs


def evaluated(folder, name, **data):
    """Adds a named evaluation to a run."""
    place = folder / "evaluations" / name
    place.mkdir(parents=True)
    card = make_evaluation(mse=0.25)
    card["protocol"]["data"] |= data
    (place / "evaluation.json").write_text(json.dumps(card))


def test_the_pictures_are_captioned_with_set_split_step_and_number(tmp_path):
    about = "photos validation, 1,234 images at 32 pixels"
    run = make_run(tmp_path / "a", snapshot=make_snapshot()._replace(about=about))
    page = page_of(run)
    pictures = page.words.split("Images of the evaluation set")[1]
    assert f"Pictures and codes: step 3, {about}." in pictures
    page = page_of(run, make_run(tmp_path / "b", snapshot=make_snapshot(step=9)))
    assert f"a: step 3, {about}." in page.words
    assert "b: step 9, images that its file, an older one, does not name." in page.words


def test_a_caption_is_text_and_never_markup(tmp_path):
    about = "folder <img src=x>\n\x1b[31m, 2 images"
    run = make_run(tmp_path / "a", snapshot=make_snapshot()._replace(about=about))
    page = page_of(run)
    assert r"folder <img src=x>\n\x1b[31m, 2 images" in page.words
    (run,) = read_runs([make_run(tmp_path / "b")])
    assert pictured([run._replace(snapshot=None)]) == []


def test_other_evaluations_of_a_run_are_listed_beside_its_own(tmp_path):
    run = make_run(tmp_path / "run")
    evaluated(run, "test-set", source="folder", split="all", images=2345)
    (run / "evaluation-ab12.json").write_text(json.dumps(make_evaluation(step=1)))
    (run / "evaluations" / "test-set" / "evaluation-cd.json").write_text("{")
    (found,) = read_runs([run])
    table = others_table([found])
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [row[:3] for row in rows] == [
        ["test-set", "3", "folder all, 2,345 images at 32 pixels"],
        ["evaluation-ab12", "1", "photos validation, 1,234 images at 32 pixels"],
    ]
    assert rows[0][table.heads.index("MSE")] == "0.2500"
    page = page_of(run)
    assert "Other evaluations" in page.words and "2,345 images" in page.words
    # The headline stays the run's own.
    assert "1,234 images of photos validation" in page.words.split("Other evaluations")[0]


def test_a_run_without_other_evaluations_has_no_table_of_them(tmp_path):
    page = page_of(make_run(tmp_path / "run"))
    assert "Other evaluations" not in page.words


def test_numbers_of_other_images_in_the_place_of_the_run_s_own_are_named(tmp_path):
    card = make_evaluation()
    card["protocol"]["data"]["split"] = "train[:24]"
    page = page_of(make_run(tmp_path / "run", evaluation=card))
    told = "evaluation.json is of photos train[:24], 1,234 images at 32 pixels, not of the run's"
    assert told in page.words


def test_what_differs_stands_above_all_numbers_of_a_comparison(tmp_path):
    changes = {"codebook.size": 512, "data.dir": "/b", "train.steps": 7}
    folders = make_run(tmp_path / "a"), make_run(tmp_path / "b", changes=changes)
    page = page_of(*folders)
    before, after = page.source.split("Fields that differ")
    assert "From evaluation.json" not in before and "From evaluation.json" in after
    table = after.split("</table>")[0]
    assert '<td class="differs">1024</td><td class="differs">512</td>' in table
    assert "train.steps" in table and "data.dir" not in table
    assert "Fields that differ" not in page_of(folders[0]).source


def test_equal_runs_are_said_to_differ_in_nothing(tmp_path):
    page = page_of(make_run(tmp_path / "a"), make_run(tmp_path / "b"))
    assert "None." in page.words.split("Fields that differ")[1].split("From evaluation.json")[0]


@pytest.mark.parametrize("text", ["mine", "<!DOCTYPE html><title>mine</title>", "{}", "\0" * 70000])
def test_a_page_is_told_from_what_else_lies_under_its_name(text, tmp_path):
    write_report([make_run(tmp_path / "run")], tmp_path / "page.html")
    assert is_report(tmp_path / "page.html")
    (tmp_path / "other").write_text(text)
    assert not is_report(tmp_path / "other")
    (tmp_path / "empty").touch()
    assert is_report(tmp_path / "empty")
