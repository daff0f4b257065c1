"""The mesh, the one rule of what is split over it, and the account of what a device holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from mq_jax.algorithm.state import Kept, Parts, Past, TrainState
from mq_jax.devices import sharding


@pytest.mark.parametrize(
    "data, fsdp, devices, shape",
    [(0, 1, 8, (8, 1)), (0, 4, 8, (2, 4)), (2, 4, 8, (2, 4)), (1, 8, 8, (1, 8)), (0, 1, 1, (1, 1))],
)
def test_the_sides_of_the_mesh_make_the_number_of_devices(data, fsdp, devices, shape):
    assert sharding.mesh_shape(data, fsdp, devices) == shape


@pytest.mark.parametrize("data, fsdp", [(3, 2), (8, 2), (0, 3), (0, 16), (1, 1)])
def test_sides_that_do_not_are_refused(data, fsdp):
    message = f"config.mesh.data is {data} and config.mesh.fsdp {fsdp} on 8 device.s.; expected"
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(data, fsdp)


def test_a_mesh_has_two_auto_axes_over_the_devices_that_are_given():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1}
    mesh = sharding.make_mesh(2, 2, jax.devices()[:4])
    assert mesh.axis_names == ("data", "fsdp") and mesh.size == 4
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def described(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize(
    "shape, spec",
    [
        ((), P()),
        ((512,), P()),
        ((7, 4), P()),  # small
        ((8, 4), P("fsdp")),
        ((4, 8), P(None, "fsdp")),
        ((16, 16), P(None, "fsdp")),  # of equals the last
        ((3, 3, 64, 8), P(None, None, "fsdp")),
        ((12, 5), P("fsdp")),
        ((4, 9), P("fsdp")),  # fsdp does not divide the largest
        ((9, 5), P()),  # nor any
    ],
)
def test_a_large_matrix_is_split_along_its_largest_axis_that_fsdp_divides(shape, spec):
    mesh = sharding.make_mesh(2, 4)
    assert sharding.shardings(described(shape), mesh, shard_from=32).spec == spec
    whole = sharding.make_mesh(8, 1)
    assert sharding.shardings(described(shape), whole, shard_from=32).is_fully_replicated


def test_moments_and_averages_live_where_their_parameters_do():
    mesh = sharding.make_mesh(2, 4)
    params = {"kernel": jnp.zeros((3, 3, 8, 16)), "bias": jnp.zeros(16)}
    opt_state = optax.chain(optax.scale_by_adam(), optax.ema(0.9)).init(params)
    where = sharding.shardings((params, opt_state), mesh, shard_from=16)
    for leaf, place in zip(
        jax.tree.leaves((params, opt_state)), jax.tree.leaves(where), strict=True
    ):
        assert place.spec == (P(None, None, None, "fsdp") if leaf.ndim == 4 else P())


@pytest.mark.parametrize("rows, spec", [(16, P(("data", "fsdp"))), (12, P())])
def test_a_batch_that_is_carried_is_split_as_batches_are(rows, spec):
    """As long as the devices divide it."""
    step, *others = (jnp.zeros(2),) * 4
    past = Past(step, *others, images=jnp.zeros((rows, 4, 4, 3)))
    where = sharding.shardings(past, sharding.make_mesh(2, 4), shard_from=0)
    assert where.images.spec == spec and where.params.is_fully_replicated


def test_what_a_pass_over_a_batch_left_is_split_by_its_rows():
    left = (jnp.zeros((16, 4)), jnp.zeros((3, 3, 8, 16)), jnp.zeros(()))
    where = sharding.shardings(Kept((), (), (), left), sharding.make_mesh(2, 4), shard_from=0)
    assert [place.spec for place in where.residuals] == [P(("data", "fsdp")), P(), P()]


def test_what_is_not_a_matrix_is_replicated():
    tree = {"key": jax.random.key(0), "counts": jnp.zeros(4096, jnp.int32), "step": jnp.int32(0)}
    where = sharding.shardings(tree, sharding.make_mesh(1, 8), shard_from=0)
    assert all(place.is_fully_replicated for place in jax.tree.leaves(where))


def make_state(shard_from=0):
    """A placed state, as descriptions, on a mesh of 2 x 4."""
    params = Parts({"w": described((16, 8)), "b": described((8,))}, {"e": described((32, 4))})
    state = TrainState(
        step=described((), jnp.int32),
        params=params,
        opt_state=Parts(params.autoencoder, {"e": described((32, 4), jnp.bfloat16)}),
        batch_stats={"one": {"mean": described((8,))}, "two": {"mean": described((8,))}},
        rng=jax.eval_shape(lambda: jax.random.key(0)),
        ema=params,
        anchors=described((2,)),
    )
    return sharding.placed(state, sharding.make_mesh(2, 4), shard_from)


def test_the_account_has_a_row_for_each_part_with_its_bytes():
    rows = {row.name: row for row in sharding.holdings(make_state())}
    assert list(rows) == [
        "step",
        *("params/autoencoder", "params/codebook", "opt_state/autoencoder", "opt_state/codebook"),
        *("batch_stats", "rng", "ema/autoencoder", "ema/codebook", "anchors"),
    ]
    theta = rows["params/autoencoder"]
    assert theta == rows["opt_state/autoencoder"]._replace(name="params/autoencoder")
    assert (theta.arrays, theta.sharded, theta.axes) == (2, 1, ("fsdp",))
    assert (theta.elements, theta.size, theta.per_device) == (136, 544, 32 * 4 + 8 * 4)
    assert rows["opt_state/codebook"].size == 256 and rows["opt_state/codebook"].per_device == 64
    assert (rows["batch_stats"].arrays, rows["batch_stats"].axes) == (2, ())
    assert rows["rng"].size == 8  # two words
    assert theta.cells()[-1] == "1 over fsdp" and rows["rng"].cells()[-1] == "none"
    assert len(theta.cells()) == len(sharding.HOLDING_COLUMNS)


def test_the_total_is_the_sum_of_the_rows():
    rows = sharding.holdings(make_state())
    whole = sharding.total(rows)
    assert (whole.name, whole.axes) == ("all", ("fsdp",))
    for count in ("arrays", "sharded", "elements", "size", "per_device"):
        assert getattr(whole, count) == sum(getattr(row, count) for row in rows)
    replicated = sharding.total(sharding.holdings(make_state(shard_from=10**6)))
    assert replicated.per_device == replicated.size == whole.size and replicated.axes == ()


def test_the_account_is_what_the_devices_hold():
    mesh = sharding.make_mesh(2, 4)
    tree = {"w": jnp.zeros((16, 8)), "b": jnp.zeros(8, jnp.bfloat16)}
    arrays = jax.device_put(tree, sharding.shardings(tree, mesh, shard_from=0))
    for device in mesh.devices.flat:
        for row in sharding.holdings(arrays):
            shards = arrays[row.name].addressable_shards
            held = sum(shard.data.nbytes for shard in shards if shard.device == device)
            assert held == row.per_device


@pytest.mark.parametrize("shape", [(8, 1), (2, 4), (1, 8)])
def test_a_batch_is_split_over_all_devices_and_comes_back_in_order(shape):
    rows = {"images": np.arange(48).reshape(16, 3), "mask": np.arange(16)}
    batch = sharding.shard_batch(sharding.make_mesh(*shape), rows)
    for name, array in batch.items():
        assert [shard.data.shape[0] for shard in array.addressable_shards] == [2] * 8
        np.testing.assert_array_equal(sharding.local_rows(array), rows[name])
