"""Names that are no text, from end to end: nothing is lost, no line is forged."""

import json
import os

import exports
import pytest
import runs

from mq_jax import tokenize
from mq_jax.modes import tokenizing
from mq_jax.tokenizers import tokens
from mq_jax.tokenizers.tokenizer import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

HOSTILE = os.fsdecode(b"a\n2026-01-01 00:00:00,000 INFO step 3/12\r\x1b[2K\xff[/b]")
SHOWN = r"a\n2026-01-01 00:00:00,000 INFO step 3/12\r\x1b[2K\udcff[/b]".replace("/", "_")
HOSTILE = HOSTILE.replace("/", "_")

TOKENIZER = Tokenizer(exports.export("vqvae"))


@pytest.fixture
def images(tmp_path):
    """A folder of a hostile name with four images, all of hostile names, and one that is bad."""
    folder = tmp_path / HOSTILE
    runs.write_images(folder, 4)
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_name(f"{HOSTILE}{path.name}"))
    (folder / f"{HOSTILE}.png").write_bytes(b"no image")
    return folder


def safe(text):
    """Asserts that a text has no character that does anything; returns its lines."""
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]
    return text.splitlines()


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_tokenize_takes_every_name_and_shows_it_on_one_line(
    command, images, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(tokenizing, "load_tokenizer", lambda path: TOKENIZER)
    monkeypatch.setattr(tokenizing, "use_compilation_cache", lambda: None)
    output = tmp_path / f"out {HOSTILE}"
    given = [command, "--tokenizer=t", f"--input={images}", f"--output={output}"]
    assert tokenize.main(given) == 0
    out, err = capfd.readouterr()
    line, stages = safe(out)
    assert stages.startswith("Reading ")
    assert (
        line.startswith("4 ")
        and line.endswith("1 of 5 cannot be read or written")
        and SHOWN in line
    )
    assert [line for line in safe(err) if line.startswith(f"Skipping {SHOWN}.png: ")]
    manifest = json.loads((output / "manifest.json").read_text())
    assert [bad["name"] for bad in manifest["bad"]] == [f"{HOSTILE}.png"]
    if command == "encode":
        names = tokens.read_names(output)
        assert len(names) == 4 and all((images / name).is_file() for name in names)
    else:
        assert len(list(output.rglob("*.png"))) == 4


def test_arguments_that_are_not_understood_are_shown_on_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        tokenize.main(["encode", "--tokenizer=t", "--input=i", "--output=o", HOSTILE])
    assert ended.value.code == 2
    assert f"unrecognized arguments: {SHOWN}" in safe(capsys.readouterr().err)[-1]


@pytest.mark.parametrize("mode", ["train", "evaluate", "export", "report"])
def test_an_error_about_a_hostile_place_is_one_line(mode, tmp_path):
    place = tmp_path / HOSTILE
    place.write_text("no folder")
    outcome = runs.cli(
        *(runs.arguments() * (mode == "train")), f"--mode={mode}", f"--workdir={place}"
    )
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = safe(outcome.err)
    assert line.startswith("error: ") and SHOWN in line


@pytest.mark.slow
def test_a_run_in_hostile_places_keeps_its_log_and_its_pages(images, tmp_path):
    folder = tmp_path / f"run {HOSTILE}"
    changes = {"data__source": "folder", "data__dir": images, "data__train_split": "all"}
    changes |= {"data__eval_split": "all", "data__max_bad_share": 0.5, "data__crop": 0}
    given = runs.arguments(**changes, train__batch_size=8, data__resize=True)
    outcome = runs.cli(*given, f"--workdir={folder}")
    assert outcome.code == 0, outcome.err
    safe(outcome.out), safe(outcome.err)
    lines = safe((folder / "train.log").read_text(encoding="utf-8"))
    told = [line for line in lines if "Unreadable image 1 of" in line]
    assert told and all(f"{SHOWN}.png: " in line for line in told)
    assert (folder / "report.html").read_text(encoding="utf-8")
    for mode in ("evaluate", "export", "report"):
        outcome = runs.cli(f"--mode={mode}", f"--workdir={folder}", "--metrics=")
        assert outcome.code == 0, outcome.err
        safe(outcome.out), safe(outcome.err)
