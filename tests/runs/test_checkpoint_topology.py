"""A run may go on with other devices: a checkpoint of eight restores on any number of them."""

import functools

import jax
import numpy as np
import pytest
import runs

from mq_jax.devices import sharding
from mq_jax.runs import workdir
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.differing import FREE_FIELDS
from mq_jax.training.build import build
from mq_jax.training.lowering import checkpoint_target
from mq_jax.training.program import compile_program, start

# The joint step, which compiles quickly: shardings are not its business.
CONFIG = runs.configure(
    train__hypergradient="joint",
    model__channels=(8,),
    # A fresh encoder's z is small: sums in another order would give some of it another code.
    model__layer_norm=True,
    codebook__hidden=16,
    mesh__shard_from=16,
    data__image_size=8,
    # Averages and a discriminator are part of what must come back.
    train__ema_decay=0.9,
    discriminator__weight=0.1,
    discriminator__layers=1,
    discriminator__channels=8,
)


@functools.cache
def built(mesh):
    return build(CONFIG, 8, mesh)


def make_mesh(data, fsdp):
    return sharding.make_mesh(data, fsdp, jax.devices()[: data * fsdp])


def batches(mesh, step):
    rng = np.random.default_rng(step)
    images = rng.integers(0, 256, (2, CONFIG.train.batch_size, 8, 8, 3), np.uint8)
    return [sharding.shard_batch(mesh, level) for level in images]


@functools.cache
def compiled(mesh):
    with runs.quick_compilation():
        return compile_program(CONFIG, built(mesh), mesh)


@functools.cache
def started(mesh):
    with runs.quick_compilation():
        return start(CONFIG, built(mesh), mesh)


def go_on(arrays, mesh, steps):
    """The arrays after some steps of the program, on the devices of a mesh, and each loss."""
    program = compiled(mesh)
    # Donated otherwise, and started again from.
    arrays = jax.tree.map(lambda leaf: leaf.copy(), arrays)
    losses = []
    for step in steps:
        carried = arrays["state"], arrays["window"]
        state, window, loss = program.steps().step(*carried, (), *batches(mesh, step))
        arrays, losses = {"state": state, "window": window}, [*losses, float(loss)]
    return arrays, losses


def on_host(tree):
    """NumPy arrays by path; random keys as their words."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        arrays[jax.tree_util.keystr(path)] = np.asarray(leaf)
    return arrays


@functools.cache
def run_of_eight():
    """(folder of the checkpoint of step 2, arrays in it, arrays of step 4, losses of 3 and 4)."""
    mesh, folder = make_mesh(2, 4), runs.TEMPORARY / "topology"
    arrays, _ = go_on(started(mesh), mesh, range(2))
    saved = on_host(arrays)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(2, arrays, {}, None)
    arrays, losses = go_on(arrays, mesh, range(2, 4))
    return folder, saved, on_host(arrays), losses


@pytest.mark.parametrize("data, fsdp", [(1, 1), (1, 2), (2, 2)])
def test_a_checkpoint_of_eight_devices_goes_on_identically_on_others(data, fsdp):
    folder, saved, after, losses = run_of_eight()
    mesh = make_mesh(data, fsdp)
    target = checkpoint_target(CONFIG, built(mesh), mesh)
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore(target)
    for leaf, wanted in zip(jax.tree.leaves(restored.tree), jax.tree.leaves(target), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    runs.assert_same_arrays(on_host(restored.tree), saved)
    arrays, losses_here = go_on(restored.tree, mesh, range(2, 4))
    np.testing.assert_allclose(losses_here, losses, rtol=1e-5)
    for name, array in on_host(arrays).items():
        np.testing.assert_allclose(array, after[name], rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("data, fsdp", [(1, 1), (2, 4)])
def test_the_program_starts_and_ends_with_the_shardings_of_the_checkpoint(data, fsdp):
    """What the step returns is what it takes: nothing is gathered or recompiled in between."""
    mesh = make_mesh(data, fsdp)
    target = checkpoint_target(CONFIG, built(mesh), mesh)
    arrays, _ = go_on(started(mesh), mesh, range(1))
    split = 0
    for leaf, wanted in zip(jax.tree.leaves(arrays), jax.tree.leaves(target), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
        split += not leaf.sharding.is_fully_replicated
    assert split == 0 if fsdp == 1 else split >= 3 * 6


def test_a_run_may_go_on_with_another_mesh_and_determinism(tmp_path):
    workdir.claim(tmp_path, runs.configure().to_dict(), FREE_FIELDS)
    mesh = {"mesh__data": 2, "mesh__fsdp": 4, "mesh__shard_from": 1}
    other = runs.configure(**mesh, deterministic=True)
    workdir.claim(tmp_path, other.to_dict(), FREE_FIELDS)


# ml_collections loads a configuration file in a way that Python 3.12 drops.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_mesh_that_the_devices_do_not_make_is_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / "run"
    outcome = runs.cli(*runs.arguments(mesh__fsdp=3), f"--workdir={folder}")
    assert outcome.code == 1 and not folder.exists()
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: config.mesh.data is 0 and config.mesh.fsdp 3 on 8 device(s)")
