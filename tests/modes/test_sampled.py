"""--mode=evaluate --samples: the command, its file with a generation card, and the comparison."""

import json

import numpy as np
import pytest
import runs
import toy_space
from PIL import Image

from mq_jax.metrics import spaces
from mq_jax.modes import sampled

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """A toy network in place of Inception, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sampled, "load_spaces", lambda names, **_: (toy_space.toy_space(),))
    monkeypatch.setattr(sampled, "measurable", lambda _: (spaces.INCEPTION_NAMES, ""))


@pytest.fixture
def data(tmp_path):
    """A configuration's folder of images, and generated ones with their settings."""
    config = runs.write_images(tmp_path / "data", count=12, size=toy_space.SIDE)
    for name, settings in {"a": {"guidance": 1.5}, "b": {"guidance": 2.0, "top_k": 0}}.items():
        folder = tmp_path / name
        folder.mkdir()
        for number, image in enumerate(toy_space.draw(9, ord(name))):
            Image.fromarray(image).save(folder / f"{number}.png")
        told = {"count": 9, "seed": 3, "step": 40, **settings}
        (folder / "samples.json").write_text(json.dumps(told))
    np.savez(tmp_path / "c.npz", arr_0=toy_space.draw(9, ord("a")))
    return config


def measure(data, samples, *others):
    fields = {"source": "folder", "dir": data, "image_size": toy_space.SIDE, "crop": 0}
    given = [f"--config.data.{name}={value}" for name, value in fields.items()]
    config = f"--config={runs.ROOT}/configs/photos_mqvae.py", *given
    return runs.cli("--mode=evaluate", f"--samples={samples}", *config, *others)


def test_samples_are_measured_compared_and_told_apart(data, tmp_path):
    for name in "ab":
        outcome = measure(data, tmp_path / name, "--split=all")
        assert outcome.code == 0, outcome.err
        assert "9 samples against folder all, 12 images at 8 pixels" in outcome.out
        assert all(label in outcome.out for label in ("gFID", "sFID", "Inception score", "Recall"))
        assert "biased" not in outcome.out
    card = json.loads((tmp_path / "b" / "evaluation.json").read_text())
    generation = card["run"]["generation"]
    assert generation["settings"]["guidance"] == 2 and card["run"]["step"] == 40
    assert (generation["seed"], generation["count"]) == (3, 9)
    assert generation["reference"] == "folder all, 12 images at 8 pixels"
    assert list(card["metrics"]) == list(spaces.INCEPTION_NAMES)
    assert len(list((tmp_path / "cache/mq_jax/references").iterdir())) == 1

    compared = runs.cli("--mode=evaluate", "--compare", tmp_path / "a", tmp_path / "b")
    assert compared.code == 0, compared.err
    assert "Sampler settings that differ" in compared.out and "guidance" in compared.out
    assert "b, 9 samples" in compared.out and "seed" not in compared.out

    # As many as the features have dimensions.
    np.savez(tmp_path / "few.npz", arr_0=toy_space.draw(4, 0))
    outcome = measure(data, tmp_path / "few.npz", "--split=all", "--metrics=gfid,precision")
    assert outcome.code == 0 and "biased" in outcome.out and "sFID" not in outcome.out
    refused = runs.cli("--mode=evaluate", "--compare", tmp_path / "a", tmp_path / "few")
    assert refused.code == 1 and "samples.images is 9 in" in refused.err


def test_images_as_they_are_need_no_configuration(data, tmp_path):
    given = f"--samples={tmp_path / 'c.npz'}", f"--output={tmp_path / 'there'}"
    outcome = runs.cli("--mode=evaluate", *given, f"--reference={tmp_path / 'a'}")
    assert outcome.code == 0, outcome.err
    card = json.loads((tmp_path / "there" / "evaluation.json").read_text())
    # The same nine images.
    assert card["metrics"]["precision"] == card["metrics"]["recall"] == 1
    assert card["metrics"]["gfid"] == pytest.approx(0, abs=1e-9)
    assert card["run"]["generation"]["settings"] is None and "config" not in card["run"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--step=3"], "--step=3 is of --mode=evaluate, --mode=export and --mode=sample; ev"),
        (["--config.data.eval_split=all"], "--split names the split"),
        (["--config.train.steps=3"], "--config.train.steps changes nothing here"),
        (["--reference=a", "--split=all"], "--split is of the configuration's data"),
        (["--reference=a"], "config.data.source was given and --reference"),
        (["--config.data.eval_image_size=16"], "have 8 pixels a side and the reference 16"),
        (["--split=some"], "split 'some' is not in"),
    ],
)
def test_what_does_not_go_together_is_refused(data, tmp_path, others, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = measure(data, "a", *others)
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "a" / "evaluation.json").exists()


def test_a_sampling_that_is_not_finished_is_refused(data, tmp_path):
    (tmp_path / "a" / "0.png").unlink()
    outcome = measure(data, tmp_path / "a")
    assert "tells of 9 images, and" in outcome.err and "finish the sampling" in outcome.err
    (tmp_path / "a" / "samples.json").write_text("[")
    assert "samples.json is damaged" in measure(data, tmp_path / "a").err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--samples="], "--samples is empty"),
        (["--samples=nowhere"], "nowhere does not exist"),
        (["--samples=a"], "nothing to be measured against"),
        (["--workdir=a", "--split=all"], "is of --mode=tokens and --mode=evaluate --samples"),
    ],
)
def test_flags_alone_are_refused(data, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    outcome = runs.cli("--mode=evaluate", *given)
    assert outcome.code == 1 and message in outcome.err
