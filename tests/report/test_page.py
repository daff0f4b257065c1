"""The report: its numbers are those of the files, what is missing is named, nothing is fetched."""

import base64
import importlib
import io
import json
import os
import re

import numpy as np
import pytest
from pages import page_of
from PIL import Image
from report_folders import make_evaluation, make_rows, make_run, make_snapshot

from mq_jax.report import codes, tables, write_report
from mq_jax.report.curves import Curve, curve, spans_decades, thinned
from mq_jax.report.pictures import pictures
from mq_jax.report.runs import read_runs
from mq_jax.terminal.escaping import shell_word


def array_of(value):
    """A plot's numbers, which Plotly writes as base64."""
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
    return np.array(value, np.float64)


def figure_named(page, title):
    (found,) = re.findall(rf'<h4>{title}</h4>\s*<div class="canvas" id="([^"]+)"', page.source)
    return page.plots[found]


def test_the_headline_is_the_evaluation_in_its_file(tmp_path):
    page = page_of(make_run(tmp_path / "run", evaluation=make_evaluation(fid=4.5678)))
    for shown in ("25.43", "0.0123", "4.568", "75.0%", "2.5", "1,234 images of photos validation"):
        assert shown in page.words
    assert "Best step 3 of 4, by MSE" in page.words


def test_without_an_evaluation_file_the_headline_is_the_best_line_of_training(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "evaluation.json").unlink()
    page = page_of(run)
    assert "PSNR, dB 20.38" in page.words and "0.5000" in page.words
    assert "Numbers from the evaluation during training" in page.words


def test_of_equally_good_steps_the_later_is_the_best(tmp_path):
    rows = [
        {"step": 1, "eval/mse": 0.5},
        {"step": 2, "eval/mse": None},
        {"step": 4, "eval/mse": 0.5},
    ]
    (run,) = read_runs([make_run(tmp_path / "run", rows=rows)])
    assert run.best["step"] == 4


PIECES = {
    "metrics.jsonl": "python -m mq_jax.main --workdir={}",
    "snapshot.npz": "python -m mq_jax.main --mode=evaluate --workdir={}",
    "evaluation.json": "python -m mq_jax.main --mode=evaluate --workdir={}",
    "environment.json": "python -m mq_jax.main --workdir={}",
    "cost.json": "python -m mq_jax.main --workdir={}",
}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_piece_that_is_missing_or_damaged_is_named_with_its_command(tmp_path, piece, damage):
    run = make_run(tmp_path / "run")
    (run / piece).unlink() if damage == "missing" else (run / piece).write_text("{")
    page = page_of(run)
    assert page.words.count("To make it:") == 1
    line = page.words.split(" To make it: ")[0].rsplit(piece, 1)[1]
    unusable = "whole line yet." if piece == "metrics.jsonl" else "cannot be used; remove it."
    assert line.endswith("is not there." if damage == "missing" else unusable)
    assert PIECES[piece].format(run) in page.words


def test_a_snapshot_whose_arrays_do_not_belong_together_is_not_shown(tmp_path):
    whole = make_snapshot()
    for change in (
        {"counts": whole.counts[1:]},
        {"codebook": whole.codebook * np.nan},
        {"reconstructions": whole.reconstructions[1:]},
    ):
        run = make_run(tmp_path / "run", snapshot=whole._replace(**change))
        (read,) = read_runs([run])
        assert read.snapshot is None
        assert "snapshot.npz" in read.notices[0].text


def test_a_folder_with_nothing_but_its_configuration_makes_a_page(tmp_path):
    run = make_run(tmp_path / "run")
    for piece in PIECES:
        (run / piece).unlink()
    page = page_of(run)
    assert page.words.count("To make it:") == len(PIECES) and "data.source" in page.words
    assert not page.plots


def test_what_is_older_than_the_best_step_says_so(tmp_path):
    run = make_run(
        tmp_path / "run", snapshot=make_snapshot(step=2), evaluation=make_evaluation(step=1)
    )
    page = page_of(run)
    assert "snapshot.npz is of step 2; the best is step 3 by now." in page.words
    assert "evaluation.json is of step 1; the best is step 3 by now." in page.words


def test_a_folder_that_is_no_run_is_refused_before_anything_is_written(tmp_path):
    run, other = make_run(tmp_path / "run"), tmp_path / "other"
    other.mkdir()
    for folders, error, words in (
        ([run, other], FileNotFoundError, "config.json does not exist"),
        ([run, tmp_path / "run"], ValueError, "more than once"),
        ([], ValueError, "no folder"),
    ):
        with pytest.raises(error, match=words):
            write_report(folders, tmp_path / "page.html")
    (other / "config.json").write_text('{"seed": 0}')
    with pytest.raises(ValueError, match=r"lacks model\.kind.*expected"):
        write_report([other], tmp_path / "page.html")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_report([run], other)
    assert not (tmp_path / "page.html").exists()


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    page = page_of(make_run(tmp_path / "a"), make_run(tmp_path / "b"))
    references = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert references and all(value.startswith(("data:", "#")) for value in references)
    (style,) = re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL)
    assert "url(" not in style and "@import" not in style
    (policy,) = [value for _, value in page.attributes if (value or "").startswith("default-src")]
    assert policy.startswith("default-src 'none';") and "http" not in policy


def test_names_are_text_and_never_markup(tmp_path):
    name = "<img src=x onerror=alert(1)>&'\""
    runs = make_run(tmp_path / name), make_run(tmp_path / "b")
    page = page_of(*runs)
    assert name in page.words
    assert not any(key.startswith("on") for key, _ in page.attributes)
    # Plotly would read tags in a name, so they are escaped there once more.
    names = {trace.get("name") for plot in page.plots.values() for trace in plot["data"]}
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;'\"" in names
    raw = re.findall(r'data-plot="[^"]+">(.*?)</script>', page.source, re.DOTALL)
    assert raw and not any("<" in text for text in raw)


def test_names_that_are_no_text_make_a_page_and_show_what_they_hold(tmp_path):
    name = os.fsdecode(b"a\nb\x1b[31m\xff")
    folder = make_run(tmp_path / "a", changes={"data.dir": f"/x/{name}"}).rename(tmp_path / name)
    (folder / "evaluation.json").unlink()
    page = page_of(folder, make_run(tmp_path / "b"))
    assert r"a\nb\x1b[31m\udcff" in page.words and r"/x/a\nb\x1b[31m\udcff" in page.words
    assert f"--workdir={shell_word(str(folder))}" in page.words
    names = {trace.get("name") for plot in page.plots.values() for trace in plot["data"]}
    assert r"a\nb\x1b[31m\udcff" in names


def test_runs_of_one_folder_name_are_told_apart(tmp_path):
    folders = [tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "z"]
    runs = read_runs([make_run(folder) for folder in folders])
    assert [run.name for run in runs] == ["x/run", "y/run", "z"]


def test_curves_are_the_lines_of_the_file_and_null_is_a_gap(tmp_path):
    rows = make_rows()
    rows[1]["inner/loss"] = None
    page = page_of(make_run(tmp_path / "run", rows=rows))
    (trace,) = figure_named(page, "loss")["data"]
    assert array_of(trace["x"]).tolist() == [1, 2, 3, 4] and trace["connectgaps"] is False
    np.testing.assert_array_equal(array_of(trace["y"]), np.float32([1, np.nan, 1 / 3, 1 / 4]))


def test_every_logged_metric_is_drawn_once(tmp_path):
    rows = [{**row, "new/thing": 1.0, "plain": 2.0} for row in make_rows()]
    page = page_of(make_run(tmp_path / "run", rows=rows))
    drawn = [
        trace["name"] for plot in page.plots.values() for trace in plot["data"] if "name" in trace
    ]
    curves = sorted(set(drawn) - {"run", "dead", "in use"})
    assert curves == sorted(
        ["MSE", "PSNR, dB", "evaluation set", "training window", "loss", "direct", "indirect"]
        + ["cosine", "images per second", "thing", "plain"]
    )


def test_the_indirect_part_is_told_beside_the_direct_one(tmp_path):
    page = page_of(make_run(tmp_path / "run"))
    # Of the last line: 0.004 / 0.5.
    assert "the indirect part is 0.008 of the direct one" in page.words
    plot = figure_named(page, "Norms of the two parts")
    assert {trace["name"] for trace in plot["data"]} == {"direct", "indirect"}


def test_thinning_keeps_ends_peaks_and_gaps():
    values = np.random.default_rng(0).normal(size=10_000)
    values[4321], values[8765], values[2000:2100] = 99, -99, np.nan
    points = Curve(np.arange(10_000) * 5, values)
    found = thinned(points, 200)
    assert len(found.steps) <= 200
    assert (np.diff(found.steps) > 0).all()
    np.testing.assert_array_equal(found.values, values[found.steps // 5])
    for index in (0, 4321, 8765, 9999):
        assert 5 * index in found.steps
    assert np.isnan(found.values).any()
    assert thinned(found, 200) is found


@pytest.mark.parametrize(
    "values, expected",
    [([1, 10, 100], True), ([1, 2, 3], False), ([0, 10, 100], False), ([np.nan, 1], False)],
)
def test_a_logarithmic_axis_is_for_positive_values_over_decades(values, expected):
    assert spans_decades([Curve(np.arange(len(values)), np.array(values, float))]) is expected


def test_a_metric_that_no_line_has_is_an_empty_curve():
    assert curve([{"step": 1, "a": 2.0}], "b").steps.shape == (0,)


def test_errors_are_coloured_on_one_scale(tmp_path):
    found = pictures(read_runs([make_run(tmp_path / "run")]))
    snapshot = make_snapshot()
    error = np.abs(snapshot.originals.astype(float) - snapshot.reconstructions).mean(-1)
    assert found.top == int(np.ceil(np.percentile(error, 99.5)))
    assert found.largest == int(np.ceil(error.max()))
    read = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
        for uri in (found.scale, found.groups[0][0].original, found.groups[0][0].shown[0].error)
    ]
    scale = read[0][0]
    np.testing.assert_array_equal(read[1], snapshot.originals[0])
    levels = np.clip(np.float32(error[0]) * np.float32(255 / found.top), 0, 255).round().astype(int)
    np.testing.assert_array_equal(read[2], scale[levels])
    # The scale rises in brightness, so that it reads in print, too.
    assert (np.diff(scale.astype(float) @ [0.299, 0.587, 0.114]) > 0).all()


def test_reconstructions_stand_under_one_original_where_originals_are_equal(tmp_path):
    other = make_snapshot(seed=2)
    unlike = other._replace(originals=255 - other.originals)
    folders = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", snapshot=other),
        make_run(tmp_path / "c", snapshot=unlike),
    ]
    found = pictures(read_runs(folders))
    names = [[shown.run for shown in group[0].shown] for group in found.groups]
    assert names == [["a", "b"], ["c"]]


def test_the_histogram_is_sorted_and_the_dead_are_counted(tmp_path):
    page = page_of(make_run(tmp_path / "run"))
    (trace,) = figure_named(page, "How often codes occur")["data"]
    counts = np.arange(12, 0, -1)
    np.testing.assert_allclose(array_of(trace["y"]), counts / counts.sum(), rtol=1e-6)
    assert "4 of 16 codes (25.0%) do not occur among the 78" in page.words
    # 12 + 11 + 10 + 9 of 78 are more than a half; three of them are not.
    assert "the 4 most frequent make up half" in page.words


def test_codewords_lie_in_the_plane_of_most_variance(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "run")])
    figure = codes.codeword_figure(run, several=False)
    dead, live = json.loads(figure.json)["data"]
    centred = run.snapshot.codebook.astype(np.float64) - run.snapshot.codebook.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    order = array_of(live["customdata"])
    assert sorted(order) == list(range(12)) and len(array_of(dead["x"])) == 4
    for axis, direction in (("x", directions[0]), ("y", directions[1])):
        expected = centred[order] @ direction
        found = array_of(live[axis])
        np.testing.assert_allclose(found * np.sign(found @ expected), expected, atol=1e-5)
    share = (singular[:2] ** 2).sum() / (singular**2).sum()
    assert f"the plane that keeps {share:.0%}" in figure.caption
    # The most frequent are drawn last.
    assert (np.diff(array_of(live["marker"]["color"])) >= 0).all()


def test_of_many_codewords_some_are_drawn_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(codes, "MOST_CODEWORDS", 10)
    (run,) = read_runs([make_run(tmp_path / "run")])
    figure = codes.codeword_figure(run, several=False)
    assert sum(len(array_of(trace["x"])) for trace in json.loads(figure.json)["data"]) == 10
    assert "A random 10 of them are drawn." in figure.caption


@pytest.mark.parametrize("codebook", [np.zeros((16, 4)), np.arange(16.0)[:, None]])
def test_a_codebook_without_a_plane_is_drawn_all_the_same(tmp_path, codebook):
    snapshot = make_snapshot()._replace(codebook=codebook.astype(np.float32))
    page = page_of(make_run(tmp_path / "run", snapshot=snapshot))
    (dead, _) = figure_named(page, "Codewords in two dimensions")["data"]
    assert array_of(dead["y"]).tolist() == [0] * 4


def test_what_is_not_the_default_comes_first(tmp_path, monkeypatch):
    changes = {"codebook.size": 16, "model.channels": (8, 8)}
    (run,) = read_runs([make_run(tmp_path / "run", changes=changes)])
    whole, changed = tables.configuration_tables(run)
    shown = [[cell.text for cell in row] for row in changed.rows]
    assert ["codebook.size", "16", "1024"] in shown and ["data.source", "photos", '""'] in shown
    assert ["model.channels", "[8, 8]", "[32, 64]"] in shown and len(shown) == 3
    assert len(whole.rows) == len(run.config)

    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert tables.configuration_tables(run) == (whole, None)


def test_runs_are_compared_side_by_side(tmp_path):
    first = make_run(tmp_path / "a", evaluation=make_evaluation(mse=0.2, psnr=20.0))
    second = make_run(
        tmp_path / "b",
        evaluation=make_evaluation(mse=0.1, psnr=19.0),
        changes={"codebook.size": 512},
    )
    (second / "environment.json").write_text('{"python": "3.12.0"}')
    page = page_of(first, second)
    table = page.source.split("From evaluation.json")[1].split("</table>")[0]
    assert '<td>3</td><td class="best">20.00</td><td>0.2000</td>' in table
    assert '<td>19.00</td><td class="best">0.1000</td>' in table
    differing = page.source.split("Fields that differ")[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th>', differing) == ["codebook.size"]
    assert '<td class="differs">3.11.7</td><td class="differs">3.12.0</td>' in page.source
    colours = [trace["meta"]["colour"] for trace in figure_named(page, "loss")["data"]]
    assert sorted(colours) == [0, 1]


def test_the_only_number_of_its_kind_is_not_the_best(tmp_path):
    folders = [
        make_run(tmp_path / "a", evaluation=make_evaluation(fid=1.0)),
        make_run(tmp_path / "b"),
    ]
    runs = read_runs(folders)
    table = tables.metrics_table("", runs, [tables.measured_metrics(run) for run in runs])
    column = table.heads.index("rFID ↓")
    assert [row[column] for row in table.rows] == [("1.000", ""), ("–", "")]


def test_unlike_protocols_are_named_above_the_numbers(tmp_path):
    other = make_evaluation()
    other["protocol"]["data"]["images"] = 10
    page = page_of(make_run(tmp_path / "a"), make_run(tmp_path / "b", evaluation=other))
    assert "data.images is 1234 in a, 10 in b" in page.words


def test_hours_come_from_the_rate_of_each_window(tmp_path):
    run = make_run(tmp_path / "run")
    (read,) = read_runs([run])
    fields = tables.cost_fields(read)
    minutes = sum(64 / (10 * step) for step in (1, 2, 3, 4)) / 60
    assert fields["time in training steps"] == f"{minutes:.1f} min"
    assert fields["images a second, median"] == "25.0"
    assert fields["images of the inner level"] == "256"
    assert fields["parameters"] == "361,347" and fields["parameters of the codebook"] == "49,440"
    assert fields["FLOPs of a step, a device"] == "34.96 GFLOP" and fields["devices"] == "1"
    assert fields["state of a device"] == "5.0 MiB"
    assert fields["compilation at the last start"] == "2.0 s"
