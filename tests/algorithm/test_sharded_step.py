"""One device and eight give the same training: nothing in the mathematics counts devices."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny

from mq_jax.algorithm import mq, unrolling
from mq_jax.algorithm.pipelined import make_pipelined_step, with_kept, with_past
from mq_jax.algorithm.state import Parts
from mq_jax.devices import sharding
from mq_jax.models.vqvae import AutoEncoder
from mq_jax.quantizers.anchors import Anchors
from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.ema import EMA
from mq_jax.quantizers.gumbel import Gumbel
from mq_jax.quantizers.nearest import BLOCK, nearest_codeword
from mq_jax.quantizers.vq import VQ

OPTIMIZERS = Parts(tiny.make_adam(1e-2), tiny.make_sgd(0.1, momentum=0.9))
SHARD_FROM = 32  # Every kernel of the tiny model but one, and the embedding.


pytestmark = pytest.mark.usefixtures("float64")


# Whether activations are kept.
PIPELINED = {"pipelined": False, "pipelined, kept": True}


def make_step(kind):
    """A train step, and the state before it on no particular device."""
    # Eight channels can be split over eight devices, and the codewords come in three chunks.
    objective = tiny.make_objective(chunk=BLOCK)
    codebook = Codebook("mlp", size=2 * BLOCK + 8, dim=8, embedding_dim=3, hidden=8)
    objective = objective._replace(
        autoencoder=AutoEncoder((8,), 0, dim=8, layer_norm=True, init_std=0.02),
        quantizer=dataclasses.replace(objective.quantizer, codebook=codebook),
    )
    if kind in QUANTIZERS:
        objective = tiny.with_quantizer(objective, QUANTIZERS[kind]())
    problem = mq.Problem(objective, OPTIMIZERS)
    if kind == "two updates, rolled back":
        step = unrolling.make_unrolled_step(problem, straight_through="encoder")
        again = unrolling.make_rolled_back_step(problem, step, straight_through="encoder")
        return (
            lambda state, inner, outer: again(state, (inner, -inner), outer),
            tiny.make_state(objective, OPTIMIZERS, seed=1),
        )
    if kind == "joint" or kind in QUANTIZERS:
        step = mq.make_joint_step(problem, straight_through="encoder")
    elif kind in PIPELINED:
        step = make_pipelined_step(problem, straight_through="encoder", keep=PIPELINED[kind])
    else:
        step = mq.make_train_step(problem, hypergradient=kind, straight_through="encoder")
    state = tiny.make_state(objective, OPTIMIZERS, seed=1)
    images = tiny.make_images(16, seed=0)
    if PIPELINED.get(kind):
        state = with_kept(problem, state, images, (), straight_through="encoder")
    elif kind in PIPELINED:
        state = with_past(state, images)
    return step, state


@functools.cache
def train(kind, data, fsdp):
    """The state after three steps and the metrics of each, on a mesh of data x fsdp devices."""
    mesh = sharding.make_mesh(data, fsdp, jax.devices()[: data * fsdp])
    step, state = make_step(kind)
    where = sharding.shardings(state, mesh, SHARD_FROM)
    places = where, sharding.replicated(mesh)
    jitted = tiny.jit(step, donate_argnums=0, out_shardings=places)
    state = jax.device_put(state, where)
    history = []
    for i in range(3):
        batches = [
            sharding.shard_batch(mesh, tiny.make_images(16, seed=2 * i + j)) for j in range(2)
        ]
        state, metrics = jitted(state, *batches)
        history.append(jax.device_get(metrics))
    return state, history


CASES = [
    *(("joint", 8, 1), ("unrolled", 4, 2), ("unrolled", 1, 8)),
    *(pytest.param(kind, 4, 2, marks=pytest.mark.slow) for kind in (*PIPELINED, "none")),
]

OTHERS = (
    *("unrolled-reverse", "sama", "identity", "neumann", "cg", "finite-difference"),
    "two updates, rolled back",
)

# With a state, with restarts and with draws: counts, anchors and candidates are of all devices.
QUANTIZERS = {
    "ema restart": lambda: EMA(24, 8, LOOKUP, restart_below=0.9),
    "cvq": lambda: VQ(PLAIN, LOOKUP, commitment=0.25, restart=Anchors(chunk=BLOCK)),
    "gumbel": lambda: Gumbel(PLAIN, channels=8, chunk=BLOCK),
}
LOOKUP = functools.partial(nearest_codeword, chunk=BLOCK)
PLAIN = Codebook("embedding", size=24, dim=8, embedding_dim=3, hidden=8)


@pytest.mark.parametrize("kind, data, fsdp", CASES)
def test_eight_devices_train_as_one_does(kind, data, fsdp):
    (one, history), (eight, eight_history) = train(kind, 1, 1), train(kind, data, fsdp)
    for want, got in zip(history, eight_history, strict=True):
        np.testing.assert_array_equal(got["inner/code_counts"], want["inner/code_counts"])
        assert got["inner/code_counts"].sum() == 16 * 4 * 4
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-9, atol=1e-12, err_msg=name)
    for part in ("params", "opt_state", "batch_stats", "past"):
        for a, b in zip(
            jax.tree.leaves(getattr(eight, part)), jax.tree.leaves(getattr(one, part)), strict=True
        ):
            assert len(a.sharding.device_set) == 8
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_eight_devices_keep_the_state_of_a_quantizer_as_one_does(kind):
    (one, history), (eight, eight_history) = train(kind, 1, 1), train(kind, 4, 2)
    for want, got in zip(history, eight_history, strict=True):
        np.testing.assert_array_equal(got["inner/code_counts"], want["inner/code_counts"])
    assert jax.tree.leaves(one.quantizer)
    trees = [(state.quantizer, state.params, state.opt_state) for state in (one, eight)]
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_eight_devices_find_the_hypergradient_of_one(kind):
    (one, history), (eight, eight_history) = train(kind, 1, 1), train(kind, 4, 2)
    for want, got in zip(history, eight_history, strict=True):
        assert set(got) == set(want) and want["outer/indirect_norm"] > 0
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-7, atol=1e-10, err_msg=name)
    for a, b in zip(jax.tree.leaves(eight.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


def bytes_held(tree, device):
    """Bytes of a tree's arrays on one device."""
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == device
    )


@pytest.mark.parametrize("kind, data, fsdp", CASES)
def test_a_device_holds_an_fsdpth_of_what_is_split_and_all_of_the_rest(kind, data, fsdp):
    state, _ = train(kind, data, fsdp)
    for tree in (state.params, state.opt_state):
        leaves = jax.tree.leaves(tree)
        # The rule in words: large enough, not a vector, and a side that fsdp divides.
        large = [
            leaf.ndim > 1 and leaf.size >= SHARD_FROM and any(s % fsdp == 0 for s in leaf.shape)
            for leaf in leaves
        ]
        expected = sum(
            leaf.nbytes // (fsdp if splits else 1)
            for leaf, splits in zip(leaves, large, strict=True)
        )
        for device in jax.devices():
            assert bytes_held(tree, device) == expected
        whole = sum(leaf.nbytes for leaf in leaves)
        assert expected == whole if fsdp == 1 else expected < 1.5 * whole / fsdp
