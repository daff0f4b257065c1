"""The modes that use a trained run: evaluation of everything, comparison, export, report."""

import json
import re
import shutil

import numpy as np
import pytest
import runs
from PIL import Image

from mq_jax import load_tokenizer
from mq_jax.evaluation.protocol import read_evaluation
from mq_jax.metrics import measures
from mq_jax.models import inception_weights
from mq_jax.runs.snapshot import read_snapshot

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A copy of a finished run; what is kept between programs is this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(runs.finished()[1], tmp_path / "run")


def lines(outcome):
    return outcome.out.splitlines()


@pytest.mark.slow
def test_evaluate_measures_all_there_is_and_says_that_it_is_not_fid(finished):
    outcome = runs.cli("--mode=evaluate", f"--workdir={finished}")
    assert outcome.code == 0, outcome.err
    assert re.search("in VGG16's feature space: it is not FID.*--download_weights", outcome.err)
    assert "The Fréchet distance is of 10 images in 512 dimensions: biased" in outcome.out
    card = read_evaluation(finished)
    others = {"ssim", "lpips_alex", "lpips_vgg", "frechet_vgg"}
    assert card["metrics"].keys() == {"mse", "psnr", "usage", "perplexity"} | others
    assert others <= card["protocol"]["measures"].keys()
    assert all(np.isfinite(value) for value in card["metrics"].values())
    assert card["run"]["seconds"] > 0 and "jax" in card["run"]["packages"]
    snapshot = read_snapshot(finished)
    assert snapshot.counts.sum() == 10 * 16 * 16 and snapshot.codebook.shape == (16, 4)
    (reference,) = (finished.parent / "cache" / "mq_jax" / "references").iterdir()
    assert reference.stem.endswith(card["protocol"]["data"]["pixels"])
    again = runs.cli("--mode=evaluate", f"--workdir={finished}", "--metrics=frechet_vgg")
    assert again.code == 0
    found = read_evaluation(finished)["metrics"]["frechet_vgg"]
    assert found == card["metrics"]["frechet_vgg"]


def test_evaluate_takes_the_inception_network_where_its_weights_are(finished, monkeypatch):
    """A stand-in for the network: what is tested is the way to it."""
    monkeypatch.setattr(inception_weights, "find", lambda directory: directory)
    stand_in = lambda weights, images: images.mean((1, 2))  # noqa: E731
    monkeypatch.setattr(measures, "_inception", stand_in)
    monkeypatch.setattr(measures.inception, "DIM", 3)
    weights = {"from": np.zeros(1)}
    monkeypatch.setattr(inception_weights, "load_weights", lambda directory: weights)
    given = ["--metrics=ssim,fid", "--weights-dir=somewhere"]
    outcome = runs.cli("--mode=evaluate", f"--workdir={finished}", *given)
    assert outcome.code == 0, outcome.err
    card = read_evaluation(finished)
    assert card["metrics"]["fid"] > 0 and "rFID" in outcome.out
    assert card["protocol"]["measures"]["fid"]["weights"] == inception_weights.SHA256


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("speed", "'speed' is no measure; expected one of ssim, lpips_alex"),
        ("ssim,rfid", r"'rfid' is no measure; expected one of ssim, .* \(did you mean fid\?\)"),
        ("fid,frechet_vgg", "are measured one at a time"),
        ("fid", "FID's Inception weights .* do not exist. Fetch them"),
    ],
)
def test_measures_that_cannot_be_had_get_one_line(finished, metrics, message):
    outcome = runs.cli("--mode=evaluate", f"--metrics={metrics}", f"--workdir={finished}")
    assert (outcome.code, outcome.out) == (1, "") and len(outcome.err.splitlines()) == 1
    assert re.search(message, outcome.err)
    assert not (finished / "evaluation.json").exists()


def test_small_images_are_measured_without_what_needs_larger_ones():
    names, left_out = measures.every_measure(8, "nowhere")
    assert names == []
    assert sorted(sentence.split()[0] for sentence in left_out) == [
        "The",
        "frechet_vgg",
        "lpips_alex",
        "lpips_vgg",
        "ssim",
    ]
    names, _ = measures.every_measure(31, "nowhere")
    assert names == ["ssim", "lpips_alex", "lpips_vgg", "frechet_vgg"]


def test_evaluations_under_one_protocol_stand_side_by_side(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / "other")
    for folder in (finished, other):
        assert runs.cli("--mode=evaluate", "--metrics=ssim", f"--workdir={folder}").code == 0
    outcome = runs.cli("--mode=evaluate", "--compare", finished, other)
    assert outcome.code == 0, outcome.err
    rows = [runs.table_row(outcome, f"{name}, step 12") for name in ("run", "other")]
    assert rows[0][1:] == rows[1][1:] and len(rows[0]) == 6
    card = json.loads((other / "evaluation.json").read_text())
    card["protocol"]["data"]["resize"] = "bilinear"
    (other / "evaluation.json").write_text(json.dumps(card))
    outcome = runs.cli("--mode=evaluate", "--compare", finished, other)
    assert (outcome.code, outcome.out) == (1, "") and "data.resize is 'none' in" in outcome.err
    outcome = runs.cli("--mode=evaluate", "--compare", "--unlike", finished, other)
    assert outcome.code == 0 and "Unlike: data.resize is 'none' in" in outcome.out


@pytest.mark.parametrize("given", [[], ["one"], ["same", "same"], ["same", "same/"]])
def test_one_evaluation_is_no_comparison(given):
    outcome = runs.cli("--mode=evaluate", "--compare", *given)
    assert outcome.code == 1 and "expected two or more runs" in outcome.err


def test_export_leaves_a_tokenizer_of_the_best_checkpoint(finished):
    runs.cli("--mode=evaluate", "--metrics=", f"--workdir={finished}")
    outcome = runs.cli("--mode=export", f"--workdir={finished}")
    assert (outcome.code, outcome.err) == (0, "")
    assert lines(outcome)[0] == f"Step 12: {finished}/export"
    tokenizer = load_tokenizer(finished)
    assert lines(outcome)[-1] == f"Fingerprint: {tokenizer.fingerprint}"
    card = json.loads((finished / "export" / "card.json").read_text())
    assert card["evaluation"]["metrics"]["mse"] == read_evaluation(finished)["metrics"]["mse"]
    # What evaluation showed of this checkpoint is what the tokenizer makes.
    snapshot = read_snapshot(finished)
    assert snapshot.step == 12
    found = tokenizer.reconstruct(snapshot.originals).astype(int)
    assert np.abs(found - snapshot.reconstructions).max() <= 1
    np.testing.assert_allclose(tokenizer.weights.codebook, snapshot.codebook, atol=1e-6)


def test_every_mode_works_in_a_folder_of_any_legal_name(finished):
    name = "a [1]\\n*?\udcff\n"
    folder = (finished.parent / name / "run").absolute()
    shutil.copytree(finished, folder)
    for mode in (["--mode=evaluate", "--metrics="], ["--mode=export"], ["--mode=report"]):
        outcome = runs.cli(*mode, f"--workdir={folder}")
        assert outcome.code == 0, outcome.err
    for export in (folder, folder / "export" / "orbax"):
        assert load_tokenizer(export).size == 16
    assert {path.name for path in finished.parent.iterdir()} <= {"run", name, "cache"}


def test_where_the_best_checkpoint_is_damaged_another_one_can_be_named(finished):
    (best,) = (finished / "checkpoints" / "12").glob("tree/d/*")
    best.write_bytes(best.read_bytes()[:-1] + b"x")
    given = [f"--workdir={finished}", "--metrics="]
    for mode in ("evaluate", "export"):
        outcome = runs.cli(f"--mode={mode}", *given)
        assert (outcome.code, outcome.out) == (1, "") and outcome.err.count("error: ") == 1
        assert re.search(r"damaged are 12: .* Take another one: --step=10\.", outcome.err)
        outcome = runs.cli(f"--mode={mode}", "--step=10", *given)
        assert outcome.code == 0, outcome.err
    assert read_evaluation(finished / "evaluations" / "step-10")["run"]["step"] == 10
    card = json.loads((finished / "export" / "card.json").read_text())
    assert card["training"]["step"] == card["evaluation"]["run"]["step"] == 10
    outcome = runs.cli("--mode=export", "--step=7", *given)
    assert outcome.code == 1 and "has no checkpoint of step 7; it has [10, 12]" in outcome.err


@pytest.mark.parametrize("mode", ["train", "report", "plan"])
def test_a_step_is_refused_where_none_is_taken(finished, mode):
    outcome = runs.cli(f"--mode={mode}", "--step=10", f"--workdir={finished}")
    assert outcome.code == 1 and f"--mode=sample; {mode} takes none" in outcome.err


def test_a_damaged_record_is_told_where_it_may_hide_the_best_checkpoint(finished):
    records = [finished / "checkpoints" / step / "record" / "metadata" for step in ("10", "12")]
    found = json.loads(records[1].read_text())
    del found["sealed"]
    # As a program of before wrote it: with the numbers of an evaluation, without checksums.
    records[0].write_text(json.dumps(found))
    (finished / "checkpoints" / "10" / "checksums.json").unlink()
    records[1].write_text(records[1].read_text() + " ")
    outcome = runs.cli("--mode=export", f"--workdir={finished}")
    assert "damaged are the records of steps [12], which may be better than 10" in outcome.err


def test_export_without_an_evaluation_says_so(finished):
    outcome = runs.cli("--mode=export", f"--workdir={finished}")
    assert outcome.code == 0
    assert lines(outcome)[-1].startswith("The model card has no numbers: evaluate this step first")


def test_an_export_written_again_keeps_the_formats_that_it_had(finished):
    given = ("--mode=export", f"--workdir={finished}")
    outcome = runs.cli(*given, "--formats=onnx")
    assert (outcome.code, outcome.out) == (1, "") and "--formats has 'onnx'; exp" in outcome.err
    outcome = runs.cli(*given, "--formats=pytorch,diffusers")
    told = "its net is of kind vqvae, not vqgan; --formats=pytorch can."
    assert outcome.code == 1 and told in outcome.err and len(outcome.err.splitlines()) == 1
    assert not (finished / "export").exists()
    for formats, kept in (([], False), (["--formats=pytorch"], True), ([], True)):
        outcome = runs.cli(*given, *formats)
        assert (outcome.code, "torch_tokenizer.py" in outcome.out) == (0, kept)
        page = (finished / "export" / "README.md").read_text()
        assert ('import load_tokenizer\n\ntokenizer = load_tokenizer("tok' in page) == kept
    runs.cli(*given, "--overwrite")
    assert not (finished / "export" / "torch_tokenizer.py").exists()


def test_export_of_no_run_gets_one_line(tmp_path):
    outcome = runs.cli("--mode=export", f"--workdir={tmp_path}/w")
    assert (outcome.code, outcome.out) == (1, "") and len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_report_is_written_for_one_run_and_for_several(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / "other")
    outcome = runs.cli("--mode=report", f"--workdir={finished}")
    assert (outcome.code, outcome.out) == (0, f"Report: {finished}/report.html\n"), outcome.err
    path = tmp_path / "both.html"
    outcome = runs.cli("--mode=report", finished, other, f"--output={path}")
    assert outcome.code == 0 and path.read_text().startswith("<!DOCTYPE html>")


def test_report_without_a_run_gets_one_line(tmp_path):
    outcome = runs.cli("--mode=report")
    assert outcome.code == 1 and "expected --workdir=DIR, or folders" in outcome.err
    outcome = runs.cli("--mode=report", tmp_path)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_folders_are_refused_where_none_is_taken(tmp_path):
    outcome = runs.cli("--mode=export", f"--workdir={tmp_path}", "folder")
    assert outcome.code == 1 and "'folder' is no flag" in outcome.err


def test_training_keeps_the_material_of_the_report(finished):
    best = Image.open(finished / "reconstructions" / "00000012.png")
    snapshot = read_snapshot(finished)
    # Enlarged four times, to 128 pixels.
    shown = np.asarray(best)[:, :128:4]
    np.testing.assert_array_equal(shown[:128:4], snapshot.originals[0])
    np.testing.assert_array_equal(shown[130::4], snapshot.reconstructions[0])
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["devices"]["count"] == 1
