"""The report's material: read as it was written, damage named; the environment tells no secret."""

import getpass
import json
import platform

import jax
import numpy as np
import pytest

from mq_jax.devices.environment import environment
from mq_jax.runs.snapshot import Snapshot, read_snapshot, write_snapshot

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3), np.uint8)
SNAPSHOT = Snapshot(7, np.arange(5), np.eye(5, 2, dtype=np.float32), *PICTURES, "a set, 2 images")


def test_a_snapshot_is_read_bit_for_bit(tmp_path):
    write_snapshot(tmp_path, SNAPSHOT._replace(step=3))
    write_snapshot(tmp_path, SNAPSHOT)
    found = read_snapshot(tmp_path)
    assert found.step == 7
    assert found.about == "a set, 2 images"
    for name in Snapshot._fields[1:-1]:
        mine, theirs = getattr(found, name), getattr(SNAPSHOT, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.npz"]


def test_a_snapshot_of_before_does_not_say_of_what_it_is(tmp_path):
    write_snapshot(tmp_path, SNAPSHOT._replace(about=""))
    assert read_snapshot(tmp_path).about == ""


def test_no_snapshot_says_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"--mode=evaluate --workdir={tmp_path}$"):
        read_snapshot(tmp_path)


@pytest.mark.parametrize("size", [0, 20, 400])
def test_a_damaged_snapshot_is_named(tmp_path, size):
    write_snapshot(tmp_path, SNAPSHOT)
    path = tmp_path / "snapshot.npz"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="snapshot.npz is damaged .*--mode=evaluate"):
        read_snapshot(tmp_path)


def test_the_environment_names_versions_and_devices_and_no_one():
    found = environment()
    assert found["packages"]["jax"] == jax.__version__
    assert found["devices"] == {"kind": "cpu", "count": 8, "processes": 1}
    text = json.dumps(found)
    for secret in (platform.node(), f'"{getpass.getuser()}"', "/"):
        assert secret not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": np.arange(4)}, "do not belong together"),
        ({"counts": np.arange(5) - 1}, "do not belong together"),
        ({"counts": np.arange(5.0)}, r"counts is float64\[5\]; expected 1 axes"),
        ({"codebook": np.full((5, 2), np.nan, np.float32)}, "or are not finite"),
        ({"originals": PICTURES[0][..., :1]}, "do not belong together"),
        ({"originals": PICTURES[0][0]}, "originals is uint8"),
        ({"step": np.array(-1)}, "do not belong together"),
        ({"step": np.array("7")}, "step is <U1"),
        ({"about": np.array(7)}, "about is int64"),
        ({"about": np.array("x" * 1001)}, "its text has 1,001 characters"),
    ],
)
def test_a_snapshot_whose_arrays_do_not_fit_is_damaged(tmp_path, change, message):
    np.savez_compressed(tmp_path / "snapshot.npz", **{**SNAPSHOT._asdict(), **change})
    with pytest.raises(ValueError, match=f"snapshot.npz is damaged .*{message}.*--mode=evaluate"):
        read_snapshot(tmp_path)


def test_the_command_that_mends_it_is_quoted(tmp_path):
    with pytest.raises(FileNotFoundError, match="--workdir='.*/my run'$"):
        read_snapshot(tmp_path / "my run")
