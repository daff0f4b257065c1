"""What a run's folder says of its data, and what has changed since."""

import gzip
import json
import os

import pytest

from mq_jax.runs import listing
from mq_jax.runs.listing import Recorded, difference, read_recorded, write_recorded


def split(names, origin="folder", sha256=None):
    digest = sha256 or str(hash(tuple(names)))
    return {"origin": origin, "rule": "all", "images": len(names), "sha256": digest}


def recorded(changes=(), **names):
    return Recorded({use: split(found) for use, found in names.items()}, names, list(changes))


def now(**names):
    return {use: split(found) for use, found in names.items()}, names


def test_it_is_read_as_it_was_written_also_with_names_that_are_no_text(tmp_path):
    change = {"after_step": 3, "difference": "train: 1 image then, 2 now"}
    written = recorded([change], train=["a\n.png", "b\udcff.png"], evaluation=[])
    write_recorded(tmp_path, written)
    assert read_recorded(tmp_path) == written
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_recorded(tmp_path, written)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert before.keys() == {listing.FILE, listing.NAMES_FILE}


def test_a_run_of_before_has_none(tmp_path):
    assert read_recorded(tmp_path) is None


def fifo(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "empty": lambda path: path.write_bytes(b""),
    "no object": lambda path: path.write_text("[]"),
    "another version": lambda path: path.write_text(path.read_text().replace("1", "2", 1)),
    "a split of another kind": lambda path: path.write_text('{"version": 1, "splits": {"a": 3}}'),
    "deep": lambda path: path.write_text("[" * 10**5),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\xff"),
    "a FIFO": fifo,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_record_is_refused_in_one_line(tmp_path, damage):
    write_recorded(tmp_path, recorded(train=["a"]))
    damage(tmp_path / listing.FILE)
    with pytest.raises(ValueError, match=r"data.json cannot be read .*remove it") as caught:
        read_recorded(tmp_path)
    assert "\n" not in str(caught.value)


NAMES_DAMAGES = {
    "removed": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:12] + b"\xff" * 9),
    "no names": lambda path: path.write_bytes(gzip.compress(json.dumps({"train": 3}).encode())),
    "a FIFO": fifo,
}


@pytest.mark.parametrize("damage", NAMES_DAMAGES.values(), ids=NAMES_DAMAGES.keys())
def test_without_its_names_a_record_still_tells_that_something_changed(tmp_path, damage):
    write_recorded(tmp_path, recorded(train=["a", "b"]))
    damage(tmp_path / listing.NAMES_FILE)
    found = read_recorded(tmp_path)
    assert difference(found, *now(train=["a", "b"])) == ""
    assert difference(found, *now(train=["a", "c"])) == "train: 2 images then, 2 now"


@pytest.mark.parametrize(
    "before, after, expected",
    [
        (["a"], ["a", "b"], "1 images then, 2 now, 1 added ('b') and 0 removed"),
        (["a", "b"], ["b"], "2 images then, 1 now, 0 added and 1 removed ('a')"),
        (["a", "b"], ["a", "c"], "2 images then, 2 now, 1 added ('c') and 1 removed ('b')"),
        (["a"], ["\x1b\n", *"bcd"], r"4 added ('\x1b\n', 'b', 'c', ...) and 1 removed ('a')"),
        (["a", "b"], ["b", "a"], "2 images then, 2 now, 0 added and 0 removed"),
    ],
)
def test_the_difference_is_how_many_came_and_went_and_the_first_of_them(before, after, expected):
    told = difference(recorded(train=before, other=["x"]), *now(train=after, other=["x"]))
    assert told.startswith("train: ") and told.endswith(expected) and "\n" not in told


def test_another_set_is_told_by_its_name_and_what_is_not_compared_is_left_out():
    before = Recorded({"train": split(["a"], "cifar10/3.0.2")}, {"train": ["a"]}, [])
    splits = {"train": split(["a"], "cifar10/3.0.3"), "evaluation": split(["b"])}
    names = {"train": ["a"], "evaluation": ["b"]}
    assert difference(before, splits, names) == "train: cifar10/3.0.2 then, cifar10/3.0.3 now"
