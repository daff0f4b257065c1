"""A workdir belongs to one configuration."""

import errno
import pathlib

import pytest

from mq_jax.runs import earlier
from mq_jax.runs.workdir import claim, read_config
from mq_jax.storage.files import write_atomically

CONFIG = {
    "train": {"steps": 800, "betas": (0.9, 0.95)},
    "data": {"dir": "/a", "resize": {}},
    "seed": 0,
}


@pytest.fixture(autouse=True)
def complete(monkeypatch):
    """What these configurations lack, no older ones have either."""
    monkeypatch.setattr(earlier, "ADDED", {})


def changed(**train):
    return CONFIG | {"train": CONFIG["train"] | train}


def test_the_first_claim_writes_the_configuration(tmp_path):
    claim(tmp_path / "runs" / "1", CONFIG)
    assert [path.name for path in (tmp_path / "runs" / "1").iterdir()] == ["config.json"]
    text = (tmp_path / "runs" / "1" / "config.json").read_text()
    assert text.index('"data"') < text.index('"seed"') < text.index('"train"')
    stored = read_config(tmp_path / "runs" / "1")
    assert stored["train"] == {"steps": 800, "betas": [0.9, 0.95]}


def test_the_same_configuration_may_claim_again_with_tuples_as_lists(tmp_path):
    claim(tmp_path, CONFIG)
    claim(tmp_path, CONFIG)
    claim(tmp_path, changed(betas=[0.9, 0.95]))


@pytest.mark.parametrize(
    "config, difference",
    [
        (changed(steps=900), r"train\.steps: 800 in the workdir, 900 now"),
        (changed(extra=None), r"train\.extra: absent in the workdir, None now"),
        (CONFIG | {"train": {"steps": 800}}, r"train\.betas: \[0\.9, 0\.95\] in .*, absent now"),
        (changed(steps=1) | {"seed": 2}, r"seed: 0 .*, 2 now; train\.steps: 800 .*, 1 now"),
    ],
)
def test_another_configuration_is_refused_with_its_differences(tmp_path, config, difference):
    claim(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=difference) as error:
        claim(tmp_path, config, free_fields=("data.dir",))
    assert "another --workdir" in str(error.value)
    assert read_config(tmp_path)["train"]["steps"] == 800


@pytest.mark.parametrize("free", ["data.dir", "data"])
def test_free_fields_and_sections_may_differ(tmp_path, free):
    claim(tmp_path, CONFIG)
    elsewhere = CONFIG | {"data": CONFIG["data"] | {"dir": "/b"}}
    claim(tmp_path, elsewhere, free_fields=(free,))
    with pytest.raises(ValueError, match=r"data\.dir"):
        claim(tmp_path, elsewhere, free_fields=("dat",))


@pytest.mark.parametrize("content", ["", '{"train": ', "[]", "\udcff"])
def test_a_damaged_configuration_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="config.json cannot be read"):
        claim(tmp_path, CONFIG)


def test_a_folder_without_configuration_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        read_config(tmp_path)


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="is a file"):
        claim(tmp_path / "file", CONFIG)
    with pytest.raises(OSError, match="cannot be written to"):
        claim(tmp_path / "file" / "below", CONFIG)


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_workdir_that_cannot_be_written_is_refused_in_one_line():
    with pytest.raises(OSError, match="cannot be written to") as error:
        claim("/proc/self", CONFIG)
    assert "\n" not in str(error.value)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "f", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_name_that_utf8_cannot_hold_is_written_as_it_is_shown(tmp_path):
    write_atomically(tmp_path / "f", "a \udcff é")
    assert (tmp_path / "f").read_text(encoding="utf-8") == r"a \udcff é"
