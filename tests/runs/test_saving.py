"""A thread that writes checkpoints: nobody waits for it, nothing is lost, failures are told."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mq_jax.runs import checkpoint, saving
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.saving import Saver
from mq_jax.runs.trees import copied


def tree_of(step):
    return {"w": jnp.full(5, float(step)), "rng": jax.random.key(step)}


def restored(checkpoints):
    """(step, w) of the newest."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree_of(0)
    )
    found = checkpoints.restore(target)
    return found.step, found.tree["w"][0]


@pytest.fixture
def held(monkeypatch):
    """What lets saves take their names; until then they are not there."""
    released = threading.Event()

    def slow(folder):
        assert released.wait(60)
        seal(folder)

    seal = checkpoint.seal
    monkeypatch.setattr(checkpoint, "seal", slow)
    yield released
    released.set()


def test_nobody_waits_for_a_save_not_even_for_the_first(tmp_path, held):
    written = []
    with Checkpoints(tmp_path) as checkpoints:
        with Saver(checkpoints, lambda: written.append("before")) as saver:
            original = tree_of(1)
            saver.save(1, copied(original), {}, None)
            # As the next step does.
            jax.tree.map(lambda leaf: leaf.delete(), original)
            saver.check()
            assert not (tmp_path / "1").exists()
            held.set()
        # Leaving the block has waited.
        assert (tmp_path / "1").exists() and written == ["before"]
        assert restored(checkpoints) == (1, 1.0)


def test_a_save_waits_for_the_one_before_so_that_each_is_written(tmp_path, held, monkeypatch):
    waited = []

    def wait(writing):
        waited.append(len(writing))
        held.set()
        return real_wait(writing)

    real_wait = saving.futures.wait
    with Checkpoints(tmp_path) as checkpoints, Saver(checkpoints, lambda: None) as saver:
        saver.save(1, tree_of(1), {}, None)
        monkeypatch.setattr(saving.futures, "wait", wait)
        saver.save(2, tree_of(2), {}, None)
        assert waited == [1] and (tmp_path / "1").exists()
        saver.wait()
        assert checkpoints.steps == [1, 2] and restored(checkpoints) == (2, 2.0)


def test_a_failure_is_told_once_and_the_next_save_is_made(tmp_path, monkeypatch):
    def failing(*_, **__):
        raise OSError("no space left")

    require_saved = checkpoint.require_saved
    with Checkpoints(tmp_path) as checkpoints, Saver(checkpoints, lambda: None) as saver:
        monkeypatch.setattr(checkpoint, "require_saved", failing)
        saver.save(1, tree_of(1), {}, None)
        with pytest.raises(OSError, match="Saving the checkpoint of step 1 .*no space left"):
            saver.wait()
        saver.check()
        monkeypatch.setattr(checkpoint, "require_saved", require_saved)
        saver.save(2, tree_of(2), {}, None)
        saver.wait()
        assert checkpoints.steps == [2]


def test_what_must_be_on_the_disk_before_and_is_not_prevents_the_save(tmp_path):
    def full():
        raise OSError("the log cannot be written")

    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(OSError, match="the log cannot"), Saver(checkpoints, full) as saver:
            saver.save(1, tree_of(1), {}, None)
        assert checkpoints.steps == []


def test_copies_lie_where_the_arrays_do_and_share_nothing_with_them():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    places = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",))]
    tree = {
        "arrays": [jax.device_put(jnp.arange(16.0), place) for place in places],
        "rng": jax.device_put(jax.random.key(3), places[0]),
        "empty": jax.device_put(jnp.zeros((0, 2)), places[0]),
    }
    copy = copied(tree)
    assert jax.tree.structure(copy) == jax.tree.structure(tree)
    for leaf, other in zip(jax.tree.leaves(copy), jax.tree.leaves(tree), strict=True):
        assert leaf.sharding.is_equivalent_to(other.sharding, leaf.ndim)
        assert leaf.dtype == other.dtype
    jax.tree.map(lambda leaf: leaf.delete(), tree)
    for leaf in copy["arrays"]:
        np.testing.assert_array_equal(leaf, np.arange(16.0))
    assert (jax.random.key_data(copy["rng"]) == jax.random.key_data(jax.random.key(3))).all()
