"""One device and eight give the same training: nothing in the mathematics counts devices."""

import functools

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType

from mq_jax import mq, sharding
from mq_jax.state import Parts

OPTIMIZERS = Parts(tiny.make_adam(1e-2), tiny.make_sgd(0.1, momentum=0.9))


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def make_mesh(devices):
    if devices == jax.device_count():
        return sharding.make_mesh()
    few = jax.devices()[:devices]
    return jax.make_mesh((devices,), ("data",), devices=few, axis_types=(AxisType.Auto,))


@functools.cache
def train(kind, devices):
    """The state after three steps and the metrics of each, on a mesh of so many devices."""
    # The chunks do not divide the codebook: the running minimum is sharded like the batch.
    objective = tiny.make_objective(chunk=5)
    problem = mq.Problem(objective, OPTIMIZERS)
    if kind == "joint":
        step = mq.make_joint_step(problem, straight_through="encoder")
    else:
        step = mq.make_train_step(problem, hypergradient=kind, straight_through="encoder")
    mesh = make_mesh(devices)
    jitted = tiny.jit(step, donate_argnums=0, out_shardings=sharding.replicated(mesh))
    state = jax.device_put(
        tiny.make_state(objective, OPTIMIZERS, seed=1), sharding.replicated(mesh)
    )
    history = []
    for i in range(3):
        batches = [
            sharding.shard_batch(mesh, tiny.make_images(16, seed=2 * i + j)) for j in range(2)
        ]
        state, metrics = jitted(state, *batches)
        history.append(jax.device_get(metrics))
    return state, history


def test_a_batch_is_split_over_all_devices_and_comes_back_in_order():
    rows = {"images": np.arange(48).reshape(16, 3), "mask": np.arange(16)}
    batch = sharding.shard_batch(make_mesh(8), rows)
    for name, array in batch.items():
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [2] * 8
        np.testing.assert_array_equal(sharding.local_rows(array), rows[name])


@pytest.mark.parametrize("kind", ["unrolled", "joint"])
def test_eight_devices_train_as_one_does(kind):
    (one, history), (eight, eight_history) = train(kind, 1), train(kind, 8)
    for want, got in zip(history, eight_history, strict=True):
        np.testing.assert_array_equal(got["inner/code_counts"], want["inner/code_counts"])
        assert got["inner/code_counts"].sum() == 16 * 4 * 4
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-9, atol=1e-12, err_msg=name)
    for part in ("params", "opt_state", "batch_stats"):
        for a, b in zip(
            jax.tree.leaves(getattr(eight, part)), jax.tree.leaves(getattr(one, part)), strict=True
        ):
            assert len(a.sharding.device_set) == 8
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)
