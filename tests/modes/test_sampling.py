"""--mode=sample: what a person gives and finds; what was stopped goes on; what is refused."""

import errno
import functools
import json
import os
import signal
from unittest import mock

import numpy as np
import prior_runs
import pytest
import runs
import toy_space
from PIL import Image

from mq_jax.generation import Sampling
from mq_jax.metrics import spaces
from mq_jax.modes import sampled, sampling
from mq_jax.samplers import load_prior, writing
from mq_jax.terminal.console import ImageBar
from mq_jax.tokenizers import pngs

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

GIVEN = ("--count=43", "--classes=2,0", "--seed=7", "--guidance=1.5", "--batch_size=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prior_runs.write_run(tmp_path_factory.mktemp("runs"), side=2)


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Loaded once for all, as most of the time is compilation."""
    with mock.patch.object(sampling, "load_prior", functools.cache(load_prior)):
        yield


def sample(folder, *given, output=None):
    more = () if output is None else (f"--output={output}",)
    return runs.cli("--mode=sample", f"--workdir={folder}", *given, *more)


@pytest.fixture(scope="module")
def whole(folder, loaded_once):
    done = sample(folder, *GIVEN)
    assert done.code == 0, done.err
    return folder / "samples", done


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_images_lie_in_a_folder_in_an_archive_and_in_a_grid(folder, whole):
    place, done = whole
    assert {path.name for path in place.iterdir()} == {
        *("images", "samples.json", "samples.npz", "grid.png")
    }
    assert "43 images drawn" in done.out and str(place / "images") in done.out
    with np.load(place / "samples.npz") as archive:
        images, labels = archive["arr_0"], archive["arr_1"]
    np.testing.assert_array_equal(labels, ([2, 0] * 22)[:43])
    expected = sampling.load_prior(folder, step=None, tokenizer=None).sample(
        labels, 7, sampling=Sampling(guidance=1.5), batch_size=8
    )
    np.testing.assert_array_equal(images, expected.images)
    names = sorted(path.name for path in (place / "images").iterdir())
    assert names[0] == "000000.png" and names[-1] == "000042.png"
    for name, image in zip(names, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(place / "images" / name)), image)
    # A class a column.
    grid = np.asarray(Image.open(place / "grid.png"))
    assert grid.shape == (8 * 8, 2 * 8, 3)
    np.testing.assert_array_equal(grid[8:16, 8:], images[3])
    settings = json.loads((place / "samples.json").read_text())
    told = {"count": 43, "seed": 7, "step": 4, "classes": "2,0", "guidance": 1.5}
    assert told.items() <= settings.items() and "steps" not in settings
    assert len(settings["prior"]) == len(settings["tokenizer"]) == 64


def test_a_draw_that_was_stopped_goes_on_to_the_same_bytes(folder, whole, tmp_path):
    advance, done = ImageBar.advance, []

    def signalled(self, images):
        advance(self, images)
        done.append(images)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    output = tmp_path / "there"
    with mock.patch.object(ImageBar, "advance", signalled):
        stopped = sample(folder, *GIVEN, output=output)
    assert stopped.code == 128 + signal.SIGTERM
    assert "SIGTERM: stopped at once; the same command goes on where it was." in stopped.err
    kept = len(list((output / "images").iterdir()))
    assert 5 <= kept < 43 and not (output / "samples.npz").exists()
    refused = runs.cli("--mode=evaluate", f"--samples={output}", f"--reference={whole[0]}")
    assert refused.code == 1 and f"tells of 43 images, and {output} has {kept}" in refused.err
    again = sample(folder, *GIVEN, output=output)
    assert f"{43 - kept} images drawn" in again.out and f"{kept} were there already" in again.out
    assert contents(output) == contents(whole[0])
    # Of what is whole nothing is written again.
    before = (output / "samples.npz").stat().st_mtime_ns
    idle = sample(folder, *GIVEN, output=output)
    assert idle.code == 0 and idle.out.startswith("43 were there already\n")
    assert (output / "samples.npz").stat().st_mtime_ns == before


def test_a_larger_count_adds_to_what_is_there_and_ends_with_the_bytes_of_one_draw(
    folder, whole, tmp_path
):
    output, fewer = tmp_path / "there", ("--count=11", *GIVEN[1:])
    assert sample(folder, *fewer, output=output).code == 0
    stamp = (output / "images" / "000010.png").stat().st_mtime_ns
    # Stopped before the archive of all: that of the first eleven must not stand for it.
    with mock.patch.object(writing, "finish", side_effect=OSError("stopped")):
        assert sample(folder, *GIVEN, output=output).code == 1
    assert not (output / "samples.npz").exists()
    assert json.loads((output / "samples.json").read_text())["count"] == 43
    again = sample(folder, *GIVEN, output=output)
    assert again.code == 0 and "43 were there already" in again.out, again.err
    assert contents(output) == contents(whole[0])
    assert (output / "images" / "000010.png").stat().st_mtime_ns == stamp
    refused = sample(folder, *fewer, output=output)
    assert refused.code == 1 and "count is 43 there, 11 now" in refused.err
    assert contents(output) == contents(whole[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((*GIVEN, "--seed=8"), "holds samples of other settings: seed is 7 there, 8 now. Give"),
        (("--count=43", "--top_k=3"), "classes is '2,0' there, 'all' now; guidance is 1.5 there"),
        ((*GIVEN, "--step=9"), "step is 4 there, 9 now"),
        (("--count=2", "--classes=3"), "--classes=3; expected numbers below 3 divided by commas"),
        (("--count=2", "--steps=4"), "--steps is of masked priors; this one is autoregressive"),
        (("--count=2", "--guidance_schedule=linear"), "does nothing without --guidance"),
        (("--count=2", "--top_p=0"), "Sampling.top_p is 0.0; expected in (0, 1]"),
        (("--seed=3",), "--count is missing"),
        (("--count=2", "--split=all"), "--split=all is of --mode=tokens"),
        (("--count=2", "--config.seed=1"), "--config.seed changes nothing here: sample takes"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(folder, whole, given, message):
    before = contents(whole[0])
    outcome = sample(folder, *given)
    assert outcome.code == 1 and message in outcome.err, outcome.err
    assert outcome.err.startswith("error: ") or "\nerror: " in outcome.err
    assert contents(whole[0]) == before


def test_flags_of_a_sampler_are_refused_elsewhere(folder):
    outcome = runs.cli("--mode=report", f"--workdir={folder}", "--guidance=2")
    assert outcome.code == 1 and "--guidance=2.0 is of --mode=sample; report takes none" in (
        outcome.err
    )


def test_a_folder_of_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    refused = sample(folder, "--count=2", output=tmp_path)
    assert "is not empty and has no samples.json" in refused.err
    assert os.listdir(tmp_path) == ["mine.txt"]
    refused = sample(folder, "--count=2", output=tmp_path / "mine.txt")
    assert "mine.txt is a file; expected a folder" in refused.err


def test_files_that_are_damaged_or_none_of_the_samples_are_named(folder, tmp_path):
    given = {"output": tmp_path / "there"}
    assert sample(folder, *GIVEN, **given).code == 0
    place = tmp_path / "there"
    image = place / "images" / "000003.png"
    image.write_bytes(image.read_bytes()[:60])
    (place / "grid.png").unlink()
    damaged = sample(folder, *GIVEN, **given)
    assert damaged.code == 1 and "Remove it; the same command draws it again." in damaged.err
    image.unlink()
    assert "1 images drawn in " in sample(folder, *GIVEN, **given).out
    (place / "images" / "mine.png").write_bytes(b"")
    foreign = sample(folder, *GIVEN, **given)
    assert "holds 'mine.png', which is no image of this sampling" in foreign.err
    (place / "samples.json").write_text("{")
    assert "samples.json is damaged" in sample(folder, *GIVEN, **given).err


def test_a_full_disk_is_told_in_one_line_with_the_folder(folder, tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch.object(pngs, "replacing", side_effect=full):
        outcome = sample(folder, *GIVEN, output=tmp_path / "there")
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.code == 1 and "No space left on device" in line
    assert f"(writing to {tmp_path / 'there'})" in line


def test_images_of_no_class_have_no_labels(folder, tmp_path):
    done = sample(
        folder, "--count=8", "--classes=none", "--batch_size=8", output=tmp_path / "there"
    )
    assert done.code == 0, done.err
    with np.load(tmp_path / "there" / "samples.npz") as archive:
        assert archive.files == ["arr_0"] and archive["arr_0"].shape == (8, 8, 8, 3)
    settings = json.loads((tmp_path / "there" / "samples.json").read_text())
    assert settings["classes"] == "none"


def test_an_evaluation_reads_the_folder_as_it_is(folder, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sampled, "load_spaces", lambda names, **_: (toy_space.toy_space(),))
    monkeypatch.setattr(sampled, "measurable", lambda _: (spaces.INCEPTION_NAMES, ""))
    given = f"--samples={whole[0]}", f"--reference={whole[0] / 'samples.npz'}"
    outcome = runs.cli("--mode=evaluate", *given, f"--output={tmp_path / 'there'}")
    assert outcome.code == 0, outcome.err
    card = json.loads((tmp_path / "there" / "evaluation.json").read_text())
    assert card["metrics"]["gfid"] == pytest.approx(0, abs=1e-9)
    generation = card["run"]["generation"]
    assert (generation["count"], generation["seed"], card["run"]["step"]) == (43, 7, 4)
    assert generation["settings"]["guidance"] == 1.5
