"""--mode=tokens: what a person gives and sees, and who is told what is missing."""

import re
import shutil
import sys
import time

import pytest
import runs
import token_sets

from mq_jax import load_tokenizer
from mq_jax.tokensets import open_tokens

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """An export without a run, and a folder of images."""
    folder = tmp_path_factory.mktemp("given")
    return token_sets.spec(folder)


def tokens(*given):
    return runs.cli("--mode=tokens", *given)


def test_a_folder_of_images_becomes_a_token_set_and_the_same_command_finds_it(given, tmp_path):
    command = [f"--workdir={given.tokenizer}", f"--images={given.directory}"]
    command += [f"--output={tmp_path / 'set'}", "--views=center,flip"]
    with token_sets.encoders_shared():
        outcome, again = tokens(*command), tokens(*command)
    assert (outcome.code, again.code) == (0, 0), outcome.err + again.err
    what, rate, whose = outcome.out.splitlines()
    assert what.startswith(
        "10 images of folder all; 2 view(s) of 8 x 8 codes, K=16; 2 classes; 1 shards, "
    )
    assert re.fullmatch(r"10 images in [\d.]+ s, [\d.]+ images/s", rate)
    assert whose == f"Tokenizer: fingerprint {load_tokenizer(given.tokenizer).fingerprint}"
    assert again.out.splitlines() == [what, "10 were there already", whose]
    assert open_tokens(tmp_path / "set").views == ("center", "flip")


def test_a_configuration_says_where_other_images_are(given, tmp_path):
    config = f"--config={runs.ROOT}/configs/photos_mqvae.py"
    command = [f"--workdir={given.tokenizer}", config, f"--output={tmp_path / 'set'}"]
    with token_sets.encoders_shared():
        outcome = tokens(*command, "--split=validation[:3]")
        assert outcome.code == 0, outcome.err
        other = tokens(*command, "--split=validation[:3]", "--views=flip")
    assert "3 images of photos validation[:3]; 1 view(s)" in outcome.out
    assert other.code == 1 and "something else: views differ" in other.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--images={images}"], "--output is missing; give the folder of the token set"),
        (["--output={set}"], "has no config.json to take the data from; give an experiment"),
        (["--output={set}", "--images={images}", "--views=left"], "'left' is no view; expected"),
        (["--output={set}", "--images={images}", "--split=dev"], "split 'dev' is not in"),
        (["--output={set}", "--images={images}", "--shards=99"], "--shards is 99; expected"),
        (
            ["--output={set}", "{photos}", "--config.train.steps=3"],
            "--config.train.steps changes nothing here: of a configuration the data is taken alone",
        ),
        (
            ["--output={set}", "{photos}", "--config.data.train_split=all"],
            "--config.data.train_split changes nothing here; --split names the split",
        ),
        (
            ["--output={set}", "{photos}", "--images={images}", "--config.data.dir=x"],
            "config.data.dir was given and --images; give one of them",
        ),
        (["--output=gs://bucket/set", "--images={images}"], "an address; expected a path"),
    ],
)
def test_what_is_missing_or_does_not_go_together_gets_one_line(given, tmp_path, more, message):
    places = {"set": tmp_path / "set", "images": given.directory}
    places["photos"] = f"--config={runs.ROOT}/configs/photos_mqvae.py"
    outcome = tokens(f"--workdir={given.tokenizer}", *[word.format(**places) for word in more])
    assert outcome.code == 1 and outcome.out == ""
    assert message in outcome.err.splitlines()[-1]
    assert not (tmp_path / "set").exists()


def test_flags_of_token_sets_are_of_this_mode_alone(given):
    outcome = runs.cli("--mode=export", f"--workdir={given.tokenizer}", "--views=flip")
    assert (
        outcome.code == 1 and "--views=flip is of --mode=tokens; export takes none" in outcome.err
    )


def test_beam_is_asked_for_where_it_is_missing(given, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "mq_jax.tokensets.beam", raising=False)
    command = [f"--workdir={given.tokenizer}", f"--images={given.directory}"]
    outcome = tokens(*command, f"--output={tmp_path / 'set'}", "--beam=--runner=DirectRunner")
    assert outcome.code == 1 and 'install it: pip install "mq_jax[beam]"' in outcome.err


@pytest.mark.slow
def test_a_killed_command_of_a_run_goes_on_where_it_was(tmp_path):
    """The run is exported on the way."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = shutil.copytree(runs.finished()[1], tmp_path / "run")
    command = ["--mode=tokens", f"--workdir={run}", "--shards=6"]
    alone = runs.outcome(runs.launch(*command, f"--output={whole}"))
    assert alone.code == 0 and "Fingerprint: " in alone.out, alone.err
    program = runs.launch(*command, f"--output={killed}")
    while len(list(killed.glob("*.json"))) < 3:
        assert program.poll() is None
        time.sleep(0.002)
    program.kill()
    runs.outcome(program)
    again = runs.outcome(runs.launch(*command, f"--output={killed}"))
    assert again.code == 0 and "were there already" in again.out, again.err
    assert token_sets.files(killed) == token_sets.files(whole)
