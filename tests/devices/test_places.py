"""Places: this machine alone, and conveniences that a user without a home folder does without."""

import os
import pathlib
import pwd

import jax
import numpy as np
import pytest
import runs

from mq_jax import load_tokenizer
from mq_jax.data.prepared import open_prepared
from mq_jax.devices import cache
from mq_jax.devices.cache import cache_directory, use_compilation_cache
from mq_jax.devices.places import local_path
from mq_jax.metrics import feature_moments
from mq_jax.models import inception_weights, lpips_weights
from mq_jax.modes.tokenizing import run_command
from mq_jax.runs import workdir
from mq_jax.tokenize import _parsed

ADDRESSES = ["gs://bucket/x", "s3://b", "file:///tmp/x", "hdfs+ha://a:9/b", "HTTP://a", "gs:/b/x"]


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know, as containers have them."""

    def unknown(*_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_no_path_of_this_machine(address):
    for place in (address, pathlib.Path(address)):
        with pytest.raises(ValueError, match="--workdir is .*, an address; expected a path"):
            local_path(place, "--workdir")


@pytest.mark.parametrize("path", ["a:b", "/a/gs:/b", "./a b", "x[1]", "a/gs://b", ""])
def test_other_names_are_paths(path):
    assert local_path(path, "--workdir") == pathlib.Path(path)


def test_a_home_folder_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/x", "--workdir") == pathlib.Path("/home/me/x")


# What the programs and the functions behind them take, and how an error calls it.
_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
CONFIG = f"--config={runs.ROOT}/configs/photos_mqvae.py"
FLAGS = {
    "workdir": ([CONFIG, "--workdir={}"], "--workdir"),
    "workdir of an evaluation": (["--mode=evaluate", "--workdir={}"], "--workdir"),
    "workdir of an export": (["--mode=export", "--workdir={}"], "--workdir"),
    "workdir of a report": (["--mode=report", "--workdir={}"], "--workdir"),
    "folders of a report": (["--mode=report", "w", "{}"], "The folder of a run"),
    "file of a report": (["--mode=report", "w", "--output={}"], "--output"),
    "folders to compare": (["--mode=evaluate", "--compare", "{}", "w"], "--compare"),
    "weights": ([CONFIG, "--workdir=w", "--weights_dir={}"], "--weights_dir"),
    "data": ([CONFIG, "--workdir=w", "--config.data.dir={}"], "config.data.dir"),
    "lpips": ([CONFIG, "--workdir=w", "--config.perceptual.dir={}"], "config.perceptual.dir"),
    "data of a plan": ([CONFIG, "--mode=plan", "--config.data.dir={}"], "config.data.dir"),
}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("place", ["gs://bucket/x", "~/x"])
def test_a_flag_that_leads_elsewhere_gets_one_line_and_makes_nothing(
    flag, place, tmp_path, monkeypatch, homeless
):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    given, name = FLAGS[flag]
    outcome = runs.cli(*[argument.format(place) for argument in given])
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: {name} is '{place}', ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tokenizer", "input", "output"])
def test_tokenize_takes_paths_of_this_machine_alone(name, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    places = {"tokenizer": "t", "input": "i", "output": "o", name: "gs://bucket/x"}
    flags = [f"--{key}={value}" for key, value in places.items()]
    monkeypatch.setattr("mq_jax.terminal.console.log_to_terminal", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run_command(_parsed(["encode", *flags])) == 1
    assert f"error: --{name} is 'gs://bucket/x', an address" in caplog.text
    assert list(tmp_path.iterdir()) == []


FUNCTIONS = {
    "load_tokenizer": load_tokenizer,
    "workdir.claim": lambda place: workdir.claim(place, {}),
    "open_prepared": lambda place: open_prepared("cifar10", "train", place),
    "inception_weights.find": inception_weights.find,
    "lpips_weights.load_weights": lambda place: lpips_weights.load_weights("vgg", place),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("place", ["gs://bucket/x", "~/x"])
def test_functions_refuse_what_leads_elsewhere(function, place, homeless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is an address|an address|no home folder"):
        FUNCTIONS[function](place)
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_folder_there_is_no_cache_and_one_line_says_so(homeless, caplog):
    assert cache_directory() is None
    caplog.set_level("INFO")
    before = jax.config.jax_compilation_cache_dir
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    (record,) = caplog.records
    assert record.message == (
        "Compiled programs are not kept: there is no home folder. JAX_COMPILATION_CACHE_DIR may "
        "name a folder"
    )


@pytest.mark.parametrize("home", ["a file", "a folder that is read alone", "an address"])
def test_a_cache_that_cannot_be_written_is_left_out(home, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    places = {"a file": tmp_path / "file", "an address": "gs://bucket"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(places.get(home, tmp_path / "folder")))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv(_LEAST, "1")
    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    caplog.set_level("INFO")
    use_compilation_cache()
    assert "Compiled programs are not kept" in caplog.text
    assert len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize("said", [(), ("JAX_COMPILATION_CACHE_DIR",), (_LEAST,)])
def test_a_cache_is_used_where_it_can_be_made_and_for_what_compiles_quickly(
    tmp_path, monkeypatch, said
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    expected = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "new" / "mq_jax"), _LEAST: 0.0}
    for name in expected:
        monkeypatch.delenv(name, raising=False)
    for name in said:
        monkeypatch.setenv(name, "9")
    given = {}
    monkeypatch.setattr(cache.jax.config, "update", given.__setitem__)
    use_compilation_cache()
    # What the environment says stays.
    assert given == {name.lower(): value for name, value in expected.items() if name not in said}


def test_what_only_a_home_folder_could_hold_says_what_to_give(homeless):
    with pytest.raises(FileNotFoundError, match="no home folder.*--weights_dir"):
        inception_weights.find()
    with pytest.raises(ValueError, match="no home folder.*--weights_dir"):
        inception_weights.download()
    with pytest.raises(ValueError, match="data.dir is empty and TFDS's default .*no home folder"):
        open_prepared("cifar10", "train", "")


class Kept:
    """Of FeatureMoments, what keeps a reference."""

    def __init__(self, directory):
        self.moments = object.__new__(feature_moments.FeatureMoments)
        self.moments._directory, self.moments._key = directory, "key"

    def keep(self):
        self.moments._keep(feature_moments.Moments.empty(2), "pixels")
        return self.moments


@pytest.mark.parametrize("kind", ["none", "a file in its place", "a folder"])
def test_reference_statistics_are_kept_where_they_can_be(kind, tmp_path, caplog):
    (tmp_path / "file").touch()
    places = {"none": None, "a folder": tmp_path / "new"}
    moments = Kept(places.get(kind, tmp_path / "file" / "references")).keep()
    assert moments._pixels == "pixels" and np.all(moments._reference.total == 0)
    assert [path.name for path in moments._kept()] == ["key-pixels.npz"] * (kind == "a folder")
    assert ("cannot be kept" in caplog.text) == (kind == "a file in its place")
