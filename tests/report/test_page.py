"""The report: its numbers are those of the files, what is missing is named, nothing is fetched."""

import base64
import importlib
import io
import json
import os
import pathlib
import re

import numpy as np
import pytest
from pages import figure_named, page_of
from PIL import Image
from report_folders import make_evaluation, make_rows, make_run, make_snapshot

from mq_jax.report import codes, tables, write_report
from mq_jax.report.curves import Curve, curve, spans_decades, thinned
from mq_jax.report.pictures import pictures
from mq_jax.report.runs import read_runs
from mq_jax.runs.standing import write_settled
from mq_jax.terminal.escaping import shell_word


def array_of(value):
    """A plot's numbers, which Plotly writes as base64."""
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
    return np.array(value, np.float64)


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


def adversarial_rows():
    """Lowest at step 0, lowest but one before the term sets in, then up, then down."""
    values = {0: 0.1, 1: 0.5, 2: 0.4, 3: None, 4: 0.6, 5: 0.55, 6: 0.57}
    return [{"step": s, "eval/mse": v, "eval/psnr": 20.0 + s} for s, v in values.items()]


def test_the_best_step_of_a_report_is_that_of_the_checkpoints(tmp_path):
    rows = adversarial_rows()
    run = make_run(tmp_path / "run", rows=rows, snapshot=make_snapshot(step=5))
    (run / "evaluation.json").unlink()
    write_settled(run, 4)
    page = page_of(run)
    assert "Best step 5 of 6, by MSE, from 4 on" in page.words and "0.5500" in page.words
    assert "the best is step" not in page.words
    dot = figure_named(page, "MSE")["data"][-1]
    assert (dot["x"], dot["y"]) == ([5], [0.55])
    # Interrupted before the term had its whole weight.
    write_settled(make_run(tmp_path / "early", rows=rows[:4]), 4)
    (early,) = read_runs([tmp_path / "early"])
    assert early.best["step"] == 2
    (tmp_path / "run" / "settled.json").write_text("{}")
    assert "settled.json, the step of the whole adversarial weight, cannot" in page_of(run).words


def test_a_run_that_was_evaluated_before_its_first_step_alone_has_no_best(tmp_path):
    run = make_run(tmp_path / "run", rows=adversarial_rows()[:1])
    (run / "evaluation.json").unlink()
    page = page_of(run)
    assert "Best step" not in page.words and "the best is" not in page.words


def test_a_number_that_is_none_is_best_in_no_comparison(tmp_path):
    rows = [{"step": 1, "eval/mse": None}, {"step": 2, "eval/mse": 0.5, "eval/psnr": None}]
    folders = [make_run(tmp_path / "a", rows=rows), make_run(tmp_path / "b", rows=make_rows())]
    found = read_runs(folders)
    assert [run.best["step"] for run in found] == [2, 3]
    values = [tables.best_metrics(run) for run in found]
    for order in (1, -1):
        table = tables.metrics_table("", found[::order], values[::order])
        marks = {row[0].text: [cell.mark for cell in row[2:]] for row in table.rows}
        # PSNR, MSE, usage: of one number none is the better.
        assert marks == {"a": ["", "best", ""], "b": ["", "best", ""]}


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


def test_images_of_128_pixels_are_shown_as_they_are(tmp_path):
    originals = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    large = make_snapshot()._replace(originals=originals, reconstructions=255 - originals)
    found = pictures(read_runs([make_run(tmp_path / "a", snapshot=large)]))
    shown = base64.b64decode(found.groups[0][0].original.split(",")[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), originals[0])
    assert found.enlarged == ""
    page = page_of(tmp_path / "a", make_run(tmp_path / "b"))
    assert "Enlarged without smoothing: images of 8 x 8 pixels 16 times." in page.words


def test_the_use_of_codes_is_written_with_one_digit_on_the_whole_page(tmp_path):
    page = page_of(make_run(tmp_path / "run", evaluation=make_evaluation(usage=0.0732)))
    assert "Usage 7.3% of the codes" in page.words and "(25.0%) do not occur" in page.words
    assert figure_named(page, "Usage")["layout"]["yaxis"]["hoverformat"] == ".1%"
    _, shape = figure_named(page, "How often codes occur")["layout"]["shapes"]
    assert shape["label"]["text"] == "dead: 25.0%"


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
    # Of 8 x 8 pixels, so each is a square of 16 x 16; the scale is no image.
    assert found.enlarged == "Enlarged without smoothing: images of 8 x 8 pixels 16 times."
    assert read[0].shape == (1, 256, 3) and read[1].shape == read[2].shape == (128, 128, 3)
    read[1:] = [np.unique(large.reshape(8, 16, 8, 16, 3), axis=1)[:, 0, :, 0] for large in read[1:]]
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


def used(step, mse, usage, perplexity):
    """A line of metrics.jsonl with the use of codes."""
    use = {"eval/usage": usage, "eval/perplexity": perplexity}
    return {"step": step, "eval/mse": mse, **use}


FEW = (
    "Few codes are in use: 4 of 16 (25.0%); a code has 4 bits and carries 1.5 (perplexity 2.8). A "
    "new run may use more with config.model.layer_norm=False; see 'Few codes in use?' in README.md."
)


def make_used(folder, *rows, size=16):
    changes = {"codebook.size": size, "model.layer_norm": True}
    return make_run(folder, rows=[used(*row) for row in rows], changes=changes)


def test_few_codes_at_the_best_step_are_told_with_their_cure(tmp_path):
    few = make_used(tmp_path / "few", (1, 0.5, 0.9, 14.0), (2, 0.4, 0.25, 2.8), (3, 0.6, 0.8, 9.0))
    assert FEW in page_of(few).words
    many = make_used(tmp_path / "many", (1, 0.5, 0.25, 2.8), (2, 0.4, 0.75, 9.0))
    assert "Few codes" not in page_of(many).words
    both = page_of(few, many).words
    assert both.count("Few codes are in use") == 1 and f"few : {FEW}" in both


def test_few_codes_are_told_of_the_first_runs_too(tmp_path):
    run = make_used(tmp_path / "run", (1, 0.5, 0.25, 2.8))
    first = pathlib.Path(__file__).parents[1] / "fixtures" / "first_config.json"
    config = json.loads(first.read_text())
    config["codebook"]["size"] = 16
    (run / "config.json").write_text(json.dumps(config))
    (run / "evaluation.json").unlink()
    assert FEW in page_of(run).words


@pytest.mark.parametrize("unknown", ["perplexity", "snapshot", "draws"])
def test_nothing_is_said_of_codes_where_their_use_is_not_known(tmp_path, unknown):
    perplexity = None if unknown == "perplexity" else 2.8
    # The snapshot has the 78 codes that were drawn: not enough for a codebook of 64.
    size = 64 if unknown == "draws" else 16
    run = make_used(tmp_path / "run", (1, 0.5, 0.25, perplexity), size=size)
    if unknown == "snapshot":
        (run / "snapshot.npz").unlink()
    assert "Few codes" not in page_of(run).words


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
