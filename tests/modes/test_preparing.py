"""--mode=prepare: what it tells, and what it refuses."""

from unittest import mock

import pytest
import runs
from official_archives import write_celeba, write_cifar10

from mq_jax.devices.interrupt import Stopped
from mq_jax.terminal.console import ImageBar


def test_a_set_is_prepared_told_and_read(tmp_path):
    path, out = write_cifar10(tmp_path, "python"), tmp_path / "out"
    outcome = runs.cli("--mode=prepare", f"--from={path}", f"--output={out}")
    assert outcome.code == 0 and "cifar10/3.0.2: train 15, test 3; " in outcome.out
    assert f"--config.data.source=tfds:cifar10 --config.data.dir={out}" in outcome.out
    assert f"{path} is not what was published, by its sha256; it is taken" in outcome.err
    again = runs.cli("--mode=prepare", f"--from={path}", f"--output={out}")
    assert again.code == 1 and "is there already" in again.err


def test_celeba_without_annotations_is_images_alone_and_says_so(tmp_path):
    path, _ = write_celeba(tmp_path, ["1.jpg", "2.jpg", "3.jpg"], [0, 1, 2])
    outcome = runs.cli("--mode=prepare", f"--from={path}", f"--output={tmp_path}")
    assert outcome.code == 0 and (tmp_path / "celeb_a/2.1.0/features.json").is_file()
    assert "Images alone, without attributes, landmarks, identity" in outcome.err


@pytest.mark.parametrize(
    "stop, code, told",
    [
        (KeyboardInterrupt, 130, "Stopped at once; the same command starts again."),
        (Stopped("SIGTERM"), 143, "SIGTERM: stopped at once; the same command starts again."),
    ],
)
def test_a_set_that_was_stopped_leaves_nothing_and_starts_again(stop, code, told, tmp_path):
    path, out = write_cifar10(tmp_path, "python"), tmp_path / "out"
    with mock.patch.object(ImageBar, "advance", side_effect=stop):
        outcome = runs.cli("--mode=prepare", f"--from={path}", f"--output={out}")
    assert outcome.code == code and outcome.err.splitlines()[-1].endswith(told)
    assert list((out / "cifar10").iterdir()) == []


def test_an_archive_that_ends_too_early_is_refused_in_a_line_and_leaves_nothing(tmp_path):
    path, out = write_cifar10(tmp_path, "python"), tmp_path / "out"
    path.write_bytes(path.read_bytes()[:-50])
    outcome = runs.cli("--mode=prepare", f"--from={path}", f"--output={out}")
    assert outcome.code == 1 and "cannot be read" in outcome.err
    assert outcome.err.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--mode=prepare"], "--from is missing; give an archive: cifar-10-python.tar.gz"),
        (["--mode=prepare", "--from=nowhere.zip"], "nowhere.zip does not exist"),
        (["--mode=plan", "--from=x"], "--from=x is of --mode=import and --mode=prepare; plan"),
        (["--mode=prepare", "--from=x", "--views=flip"], "--views=flip is of --mode=tokens"),
    ],
)
def test_what_cannot_be_prepared_is_refused_in_a_line(arguments, told):
    outcome = runs.cli(*arguments)
    assert outcome.code == 1 and told in outcome.err
