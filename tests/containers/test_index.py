"""The index of a folder: made once, made anew where files changed, believed in nothing else."""

import json
import os

import numpy as np
import pytest

from mq_jax.containers.extents import Extent
from mq_jax.containers.index import open_index


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of two files, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(b"0123456789")
    return root


def _opened(root, names=("a", "b"), reads=("kind", "")):
    """The index, and which files were looked into."""
    looked = []

    def extents(path):
        looked.append(path.name)
        for start in (0, 4):
            yield Extent(start, 3, 0, 3, 0, 3, f"{path.name}{start}", "5")

    return open_index(root, names, list(reads), extents), looked


def test_files_are_looked_into_once(folder):
    first, looked = _opened(folder)
    again, looked_again = _opened(folder)
    assert (looked, looked_again) == (["a", "b"], [])
    for index in (first, again):
        assert (index.sizes, index.counts) == ([10, 10], [2, 2])
        assert index.extents.names.tolist() == [b"a0", b"a4", b"b0", b"b4"]
        assert index.extents.places[:, 0].tolist() == [0, 4, 0, 4]
    assert [path.name for path in folder.iterdir() if path.name[0] == "."] == [".mq_jax-kind.npz"]


def test_what_changed_is_looked_into_again_and_it_alone(folder):
    _opened(folder)
    os.utime(folder / "b", ns=(1, 1))
    assert _opened(folder)[1] == ["b"] and _opened(folder)[1] == []
    (folder / "a").write_bytes(b"01234567890")
    assert _opened(folder)[1] == ["a"]


def test_files_that_one_pattern_leaves_out_are_not_forgotten(folder):
    _opened(folder)
    (folder / "c").write_bytes(b"0123456789")
    assert _opened(folder, ["b", "c"])[1] == ["c"]
    index, looked = _opened(folder, ["c", "a"])
    assert looked == [] and index.extents.names.tolist() == [b"c0", b"c4", b"a0", b"a4"]


def test_an_index_of_other_columns_is_another(folder):
    _opened(folder)
    assert _opened(folder, reads=("kind", "other"))[1] == ["a", "b"]


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(folder, tmp_path, monkeypatch):
    # Root writes everywhere; a folder in the place of the file stops it, too.
    (folder / ".mq_jax-kind.npz").mkdir()
    (folder / ".mq_jax-kind.npz" / "x").touch()
    assert [_opened(folder)[1] for _ in range(2)] == [["a", "b"], []]
    assert len(list((tmp_path / "cache" / "mq_jax" / "indices").iterdir())) == 1


def test_without_any_place_to_keep_it_the_index_is_made_each_time(folder, tmp_path, caplog):
    (folder / ".mq_jax-kind.npz").mkdir()
    (folder / ".mq_jax-kind.npz" / "x").touch()
    (tmp_path / "cache").touch()
    assert [_opened(folder)[1] for _ in range(2)] == [["a", "b"]] * 2
    assert "cannot be kept" in caplog.text


def _edit(change):
    def edited(path):
        with np.load(path) as arrays:
            held = dict(arrays)
        told = json.loads(held["told"].tobytes())
        change(held, told)
        held["told"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        np.savez(open(path, "wb"), **held)

    return edited


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"PK"),
        lambda path: os.truncate(path, 300),
        _edit(lambda held, told: told.update(version=0)),
        _edit(lambda held, told: told["files"][0].update(images=7)),
        _edit(lambda held, told: told["files"][0].update(images=-1)),
        _edit(lambda held, told: told["files"][0].update(stamp=[10])),
        _edit(lambda held, told: held["places"].__setitem__((0, 0), 9)),
        _edit(lambda held, told: held["places"].__setitem__((0, 0), -1)),
        _edit(lambda held, told: held["places"].__setitem__((0, 1), 2**60)),
        _edit(lambda held, told: held["places"].__setitem__((1, 2), 9)),
        _edit(lambda held, told: held["places"].__setitem__((1, 3), 2**40)),
        _edit(lambda held, told: held["places"].__setitem__((1, 5), 4)),
        _edit(lambda held, told: held.update(names=held["names"][:3])),
        _edit(lambda held, told: held.update(labels=np.array([object()] * 4))),
    ],
)
def test_a_damaged_index_is_made_anew(folder, damage):
    _opened(folder)
    damage(folder / ".mq_jax-kind.npz")
    index, looked = _opened(folder)
    assert looked and index.extents.places[:, 0].tolist() == [0, 4, 0, 4]
    assert _opened(folder)[1] == []


def test_images_that_reach_past_their_file_are_refused(folder):
    def extents(path):
        yield Extent(8, 3, 0, 3, 0, 3)

    with pytest.raises(ValueError, match="a is damaged: images reach past its end"):
        open_index(folder, ["a"], ["kind"], extents)


def test_a_file_that_is_gone_is_named(folder):
    with pytest.raises(ValueError, match="data/c is no file that can be read"):
        _opened(folder, ["c"])
