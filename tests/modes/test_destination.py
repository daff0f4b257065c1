"""Evaluations of other images or steps: the run's own files stay, the others have a place."""

import json
import shutil
import types

import numpy as np
import pytest
import runs
from report_folders import make_snapshot

from mq_jax.data import inputs
from mq_jax.data.contents import Contents
from mq_jax.evaluation.evaluate import Evaluation
from mq_jax.evaluation.named import evaluations_beside, is_of_the_run
from mq_jax.evaluation.protocol import read_evaluation
from mq_jax.modes import exporting
from mq_jax.modes.destination import (
    asked_for,
    destination,
    is_own_data,
    require_name,
    shows_others,
)
from mq_jax.runs.listing import Recorded, write_recorded
from mq_jax.runs.snapshot import read_snapshot, write_snapshot
from mq_jax.runs.workdir import flat
from mq_jax.training.restored import Restored

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

OWN = ("snapshot.npz", "evaluation.json", "evaluation.png")
CONTENTS = Contents("folder", "folder 'val'", 2, ("val/a.png", "val/b.png"), per_image=True)


@pytest.fixture
def finished(tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(runs.finished()[1], tmp_path / "run")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two steps, of which nothing is computed: what is tested is where its numbers go."""
    built = types.SimpleNamespace(objective=None)

    def restored(folder, config, mesh, step):
        return Restored(built, None, step or 12, step in (None, 12))

    def evaluated(evaluator, restored, images):
        shown = np.full((2, 2, 32, 32, 3), images, np.uint8)
        counts, codebook = np.ones(16, np.int64), np.zeros((16, 4), np.float32)
        numbers = {"eval/mse": 0.5, "eval/psnr": 20.0, "eval/usage": 1.0, "eval/perplexity": 2.0}
        about = f"{images} images"
        return Evaluation(numbers, counts, codebook, *shown, images, f"{images:x}", about), 1.0

    monkeypatch.setattr("mq_jax.modes.evaluation.restore", restored)
    monkeypatch.setattr("mq_jax.modes.evaluation.Evaluator", lambda *_: None)
    monkeypatch.setattr("mq_jax.modes.evaluation._evaluated", evaluated)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(runs.configure().to_dict()))
    evaluation = {"evaluation": inputs.open_evaluation(runs.configure()).contents()}
    write_recorded(folder, Recorded({use: c.facts for use, c in evaluation.items()}, {}, []))
    return folder


def evaluate(folder, *given):
    outcome = runs.cli("--mode=evaluate", "--metrics=", f"--workdir={folder}", *given)
    assert outcome.code == 0, outcome.err
    return outcome


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_no_other_evaluation_touches_the_files_of_the_run(run, tmp_path):
    outcome = evaluate(run)
    assert "is as it was" not in outcome.out and not (run / "evaluations").exists()
    before = contents_of(run)
    assert before.keys() >= set(OWN)
    images = runs.write_images(tmp_path / "some images", 5, size=40)
    ways = {
        "step-10": ["--step=10"],
        "mine": ["--config.data.eval_split=train[:8]", "--name=mine"],
        "again": ["--name=again"],
        "photos-validation-16-": ["--size=16"],
        "some-images-all-32-": [f"--images={images}"],
    }
    for name, given in ways.items():
        outcome = evaluate(run, *given)
        assert contents_of(run) == before
        (place,) = (run / "evaluations").glob(f"{name}*")
        assert contents_of(place).keys() == set(OWN)
        assert f"The run's own evaluation is as it was; this one is in {place}" in outcome.out
        assert outcome.out.splitlines()[-1].endswith(f": {place}/evaluation.png")
    assert len(evaluations_beside(run)) == len(ways)
    told = {path.name: read_snapshot(path).about for path in (run / "evaluations").iterdir()}
    (name,) = [name for name in told if name.startswith("some-images")]
    assert (told["mine"], told[name]) == ("8 images", "5 images")
    # The same again takes the same place; something else under a name that is taken does not.
    evaluate(run, *ways["mine"])
    taken = contents_of(run / "evaluations" / "mine")
    outcome = runs.cli("--mode=evaluate", f"--workdir={run}", "--metrics=", "--name=mine")
    assert (outcome.code, outcome.out) == (1, "")
    assert "mine holds an evaluation of something else (photos train[:8], 8 im" in outcome.err
    # A link or a file in the place of its folder is told before anything is computed.
    (run / "evaluations" / "linked").symlink_to(tmp_path, target_is_directory=True)
    (run / "evaluations" / "file").write_text("mine\n")
    for name in ("linked", "file"):
        outcome = runs.cli("--mode=evaluate", f"--workdir={run}", "--metrics=", f"--name={name}")
        assert (outcome.code, outcome.out) == (1, "")
        assert f"{name} is no folder of its own" in outcome.err
    assert contents_of(run / "evaluations" / "mine") == taken
    outcome = runs.cli("--mode=evaluate", "--compare", run, run / "evaluations" / "again")
    assert outcome.code == 0, outcome.err
    assert "The runs differ in no field of their configurations." in outcome.out
    assert runs.table_row(outcome, "run/again, step 12")[1:]


def test_a_folder_of_images_is_scaled_to_the_size_that_is_asked_for(finished, tmp_path):
    images = runs.write_images(tmp_path / "images", 3, size=64)
    (tmp_path / "images" / "a" / "last.BMP").write_bytes(
        (tmp_path / "images" / "a" / "000.png").read_bytes()
    )
    # As a run of before knows them, other endings are no images.
    config = json.loads((finished / "config.json").read_text())
    del config["data"]["holdout"]
    (finished / "config.json").write_text(json.dumps(config))
    evaluate(finished, f"--images={images}", "--size=16", "--name=small")
    data = read_evaluation(finished / "evaluations" / "small")["protocol"]["data"]
    assert (data["images"], data["image_size"], data["resize"]) == (4, 16, "area")
    found = read_snapshot(finished / "evaluations" / "small")
    assert found.originals.shape[1:] == (16, 16, 3)
    assert found.about == "folder all, 4 images at 16 pixels"
    # Training said it of its own.
    assert read_snapshot(finished).about == "photos validation, 10 images at 32 pixels"


@pytest.mark.parametrize(
    "given, message",
    [
        (["--images=/nowhere"], "'/nowhere'"),
        (["--images=gs://x/y"], "--images is 'gs://x/y', an address"),
        (["--size=31"], "config.data.eval_image_size is 31; expected a multiple of"),
        (["--size=0"], "--size"),
        (["--size=16", "--config.data.resize=False"], "config.data.resize was given and --size"),
        (["--images=x", "--config.data.dir=y"], "config.data.dir was given and --images"),
        (["--name=a/b"], "--name is 'a/b'; expected up to 100 letters"),
        (["--name="], "--name is ''"),
    ],
)
def test_what_cannot_be_evaluated_gets_one_line_and_leaves_nothing(given, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(runs.configure().to_dict()))
    outcome = runs.cli("--mode=evaluate", f"--workdir={tmp_path}", *given)
    assert (outcome.code, outcome.out) == (1, "")
    assert len(outcome.err.splitlines()) == 1 and message in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("name", ["..", ".x", "a/b", "/a", "a\n", "-x", "a b", "x" * 101, "\0", ""])
def test_a_name_that_is_no_plain_one_is_refused(name):
    with pytest.raises(ValueError, match="the name of a folder, no path"):
        require_name(name)


@pytest.mark.parametrize("name", [None, "test", "a.b", "2026-01-01", "Größe_128", "x" * 100])
def test_a_plain_name_is_taken(name):
    require_name(name)


OTHERS = {
    "data__source": "folder",
    "data__eval_split": "train",
    "data__holdout": "every-tenth",
    "data__eval_image_size": 64,
    "data__image_size": 64,
    "data__crop": 8,
    "data__resize": True,
    "data__filter": "bilinear",
    "data__icc": False,
    "data__max_pixels": 5,
    "data__max_bytes": 5,
    "data__dir": "/elsewhere",
}


@pytest.mark.parametrize("field", OTHERS)
def test_other_images_or_another_way_to_make_them_are_not_the_run_s(field, tmp_path):
    run = runs.configure().to_dict()
    other = runs.configure(**{field: OTHERS[field]})
    assert is_own_data(tmp_path, run, runs.configure(), CONTENTS)
    assert not is_own_data(tmp_path, run, other, CONTENTS)
    asked = [asked_for(c, CONTENTS, 3, own_data=False) for c in (runs.configure(), other)]
    assert asked[0] != asked[1]
    told = {"step": 3, "own_data": False, "asked": asked[1]}
    place = destination(tmp_path, None, other, told, best=True)
    assert place.parent == tmp_path / "evaluations" and place.name.endswith(asked[1][:8])


@pytest.mark.parametrize("field", ["data__image_size", "eval__pictures", "eval__batch_size"])
def test_what_makes_no_other_images_changes_nothing(field, tmp_path):
    run = runs.configure(data__eval_image_size=32).to_dict()
    other = runs.configure(**{"data__eval_image_size": 32, field: 64})
    assert is_own_data(tmp_path, run, other, CONTENTS)


def test_images_that_were_moved_are_the_run_s_while_they_are_the_same(tmp_path):
    facts = {"evaluation": CONTENTS.facts}
    write_recorded(tmp_path, Recorded(facts, {"evaluation": list(CONTENTS.names)}, []))
    run = runs.configure(data__dir="/then").to_dict()
    moved = runs.configure(data__dir="/now")
    assert is_own_data(tmp_path, run, moved, CONTENTS)
    assert not is_own_data(tmp_path, run, moved, CONTENTS._replace(images=1, names=("val/a.png",)))
    # Names do not tell all: the pixels that the run has shown do.
    seen = make_snapshot()
    shown = seen.originals, seen.reconstructions
    found = Evaluation({}, seen.counts, seen.codebook, *shown, images=2, pixels="ab")
    assert not shows_others(tmp_path, found)
    write_snapshot(tmp_path, seen)
    assert not shows_others(tmp_path, found)
    assert shows_others(tmp_path, found._replace(originals=255 - seen.originals))
    card = {
        "protocol": {
            "version": 1,
            "data": {"source": "s", "split": "v", "images": 2, "image_size": 8, "pixels": "cd"},
            "measures": {},
        },
        "metrics": {},
        "run": {"step": 3, "own_data": True},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(card))
    assert shows_others(tmp_path, found)
    assert not shows_others(tmp_path, found._replace(pixels="cd"))


def test_a_folder_of_the_same_names_and_other_pixels_is_evaluated_elsewhere(run, monkeypatch):
    evaluate(run)
    before = contents_of(run)
    monkeypatch.setattr("mq_jax.modes.evaluation.shows_others", lambda *_: True)
    outcome = evaluate(run, "--config.data.dir=/elsewhere")
    assert contents_of(run) == before and "is as it was" in outcome.out
    ((name, card),) = evaluations_beside(run).items()
    assert name.startswith("photos-validation-32-") and card["run"]["own_data"] is False


def test_only_the_best_step_is_the_run_s(tmp_path):
    config = runs.configure()
    run = {"step": 3, "own_data": True, "asked": "ab"}
    assert destination(tmp_path, None, config, run, best=True) == tmp_path
    place = tmp_path / "evaluations"
    assert destination(tmp_path, None, config, run, best=False) == place / "step-3"
    assert destination(tmp_path, "x", config, run, best=True) == place / "x"


@pytest.mark.parametrize("directory", ["/a/../b\n [c]", "/", "/ä/ö", "/" + "x" * 300])
def test_a_name_made_of_a_folder_is_a_plain_one(directory, tmp_path):
    config = runs.configure(data__source="folder", data__dir=directory, data__eval_split="a[1:]")
    run = {"step": 3, "own_data": False, "asked": "0123456789"}
    place = destination(tmp_path, None, config, run, best=False)
    assert place.parent == tmp_path / "evaluations"
    require_name(place.name)
    place.mkdir(parents=True)


def test_an_evaluation_of_before_is_the_run_s_where_set_split_and_side_are():
    config = flat(runs.configure(data__eval_image_size=16).to_dict())
    data = {"source": "photos", "split": "validation", "images": 3, "image_size": 16}
    card = {"protocol": {"data": data}, "run": {"step": 3}}
    assert is_of_the_run(card, config)
    for name, value in (("source", "folder"), ("split", "train"), ("image_size", 32)):
        other = {"protocol": {"data": {**data, name: value}}, "run": {"step": 3}}
        assert not is_of_the_run(other, config)
        assert is_of_the_run({**other, "run": {"own_data": True}}, config)
        assert not is_of_the_run({**card, "run": {"own_data": False}}, config)


def test_an_export_takes_the_numbers_of_its_step_from_wherever_they_are(run):
    config = flat(runs.configure().to_dict())
    evaluate(run, "--step=10", "--config.data.eval_split=train[:8]")
    assert exporting._evaluation(run, config, 10) is None
    evaluate(run)
    evaluate(run, "--step=10")
    for step in (10, 12):
        card = exporting._evaluation(run, config, step)
        assert card["run"]["step"] == step
        assert card["protocol"]["data"]["split"] == "validation"


def test_numbers_that_another_protocol_replaces_are_kept_with_a_word(run):
    evaluate(run)
    before = (run / "evaluation.json").read_bytes()
    outcome = evaluate(run, "--metrics=ssim")
    (kept,) = run.glob("evaluation-*.json")
    assert kept.read_bytes() == before and f"are kept: {kept}" in outcome.out
    assert list(evaluations_beside(run)) == [kept.stem]


def test_damaged_evaluations_are_left_out_with_a_word(tmp_path, caplog):
    for name in ("a", "b"):
        (tmp_path / "evaluations" / name).mkdir(parents=True)
        (tmp_path / "evaluations" / name / "evaluation.json").write_text("{")
    assert evaluations_beside(tmp_path) == {}
    assert caplog.text.count("is no evaluation") == 2
