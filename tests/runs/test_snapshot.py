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
SNAPSHOT = Snapshot(7, np.arange(5), np.eye(5, 2, dtype=np.float32), *PICTURES)


def test_a_snapshot_is_read_bit_for_bit(tmp_path):
    write_snapshot(tmp_path, SNAPSHOT._replace(step=3))
    write_snapshot(tmp_path, SNAPSHOT)
    found = read_snapshot(tmp_path)
    assert found.step == 7
    for name in Snapshot._fields[1:]:
        mine, theirs = getattr(found, name), getattr(SNAPSHOT, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.npz"]


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
