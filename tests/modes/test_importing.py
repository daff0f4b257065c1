"""--mode=import: a peer's tokenizer as a run of ours, which every other mode then takes."""

import json

import numpy as np
import pytest
import runs
from peer_files import write_peer
from peer_tokenizers import discriminator, peer

from mq_jax import import_tokenizer, load_tokenizer
from mq_jax.runs.workdir import read_config

# A tiny net on tiny images.
SIZE = "--config.data.image_size=32"
LITTLE = (SIZE, "--config.perceptual.net=none", "--config.train.batch_size=8")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run, and the files that it was imported from."""
    folder = tmp_path_factory.mktemp("imported")
    source = write_peer(folder, "taming")
    found = runs.cli("--mode=import", f"--from={source}", f"--workdir={folder / 'run'}", *LITTLE)
    assert found.code == 0, found.err
    assert "taming, 2 x 2 pixels a code, K = 16, D = 4" in found.out
    return folder / "run", source


def test_the_configuration_says_what_the_file_is_and_how_its_images_are_made(imported):
    config = read_config(imported[0])
    assert config["model"]["multipliers"] == [1, 2]
    assert config["model"]["attention"] == [16]
    assert config["codebook"]["kind"] == "embedding"
    assert (config["data"]["image_size"], config["data"]["filter"]) == (32, "bilinear")


def test_it_is_exported_as_the_tokenizer_that_it_was(imported):
    folder, source = imported
    found = runs.cli("--mode=export", f"--workdir={folder}")
    assert found.code == 0, found.err
    exported = load_tokenizer(folder)
    assert exported.fingerprint == import_tokenizer(source, image_size=32).fingerprint
    np.testing.assert_array_equal(exported.encode(peer("taming").images), peer("taming").indices)
    card = json.loads((folder / "export" / "card.json").read_text())
    assert card["training"]["weights"]["format"] == "taming"
    page = (folder / "export" / "README.md").read_text()
    assert "that others have trained" in page and "| weights from | taming: vqgan.ckpt" in page


@pytest.mark.slow
def test_an_evaluation_says_whose_weights_it_is_of(imported):
    folder, _ = imported
    found = runs.cli("--mode=evaluate", f"--workdir={folder}", "--metrics=ssim")
    assert found.code == 0, found.err
    card = json.loads((folder / "evaluation.json").read_text())
    provenance = json.loads((folder / "provenance.json").read_text())
    assert card["run"]["step"] == 0
    assert card["run"]["weights"] == provenance
    assert list(provenance["files"]) == ["vqgan.ckpt"]
    assert "OpenCV's bilinear" in provenance["published"]


def test_a_run_is_never_overwritten(imported):
    folder, source = imported
    found = runs.cli("--mode=import", f"--from={source}", f"--workdir={folder}", SIZE)
    assert found.code == 1
    assert "is the folder of a run; give another --workdir" in found.err


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--from is missing"),
        (["--from=absent.ckpt"], "--from=absent.ckpt does not exist"),
        (["--from=x", "--format=vqgan"], "--format=vqgan is no format; expected one of taming"),
        (["--from={source}", "--config.codebook.size=5"], "config.codebook.size is 5"),
        (["--from={source}", "--config.data.image_size=33"], "expected a multiple"),
    ],
)
def test_nothing_is_written_where_something_is_wrong(flags, message, tmp_path):
    source = write_peer(tmp_path, "taming")
    given = [flag.format(source=source) for flag in flags]
    found = runs.cli("--mode=import", f"--workdir={tmp_path / 'run'}", *given)
    assert found.code == 1
    assert message in found.err
    assert not (tmp_path / "run").exists()


def test_only_import_takes_a_file_of_weights(tmp_path):
    found = runs.cli("--mode=export", f"--workdir={tmp_path}", "--from=x")
    assert "--from=x is of --mode=import and --mode=prepare; export takes" in found.err


@pytest.mark.slow
def test_training_goes_on_from_the_imported_weights(tmp_path):
    weights, _, _ = discriminator()
    source = write_peer(tmp_path, "taming", lambda tensors: tensors | weights)
    fields = (*LITTLE, "--config.train.steps=2", "--config.train.eval_every=2")
    folder = tmp_path / "run"
    runs.cli("--mode=import", f"--from={source}", f"--workdir={folder}", *fields)
    arrays, _ = runs.checkpoint(folder)
    name = "loss.discriminator.main.11.bias"
    np.testing.assert_array_equal(arrays["state/params/discriminator/Conv_4/bias"], weights[name])
    found = runs.cli(f"--workdir={folder}")
    assert found.code == 0, found.err
    assert runs.checkpoint_steps(folder) == [0, 2]
