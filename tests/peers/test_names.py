"""The tables of names against the modules of our net, and against themselves in reverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mq_jax.models.vqgan import AutoEncoder
from mq_jax.peers import layouts
from mq_jax.peers.names import FORMATS, OLD_DIFFUSERS, tensors
from mq_jax.peers.net import Net
from mq_jax.runs.trees import by_path

NETS = {
    "attention at the lowest level": Net(32, (1, 2, 2), 2, (2,), True, 24, 16),
    "attention at two levels": Net(32, (1, 1, 2), 1, (0, 1), True, 8, 8),
    "none in the middle": Net(32, (2, 4), 1, (), False, 8, 4),
    "one level": Net(32, (1,), 1, (0,), True, 8, 4),
}


def our_shapes(net):
    """The parameters of the module, by their paths."""
    module = AutoEncoder(
        **net._asdict(),
        groups=32,
        layer_norm=False,
        init_std=0.02,
        dtype=jnp.float32,
        remat=False,
    )
    images = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    return {name: leaf.shape for name, leaf in by_path({"theta": shapes["params"]}).items()}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("names", [*FORMATS.values(), OLD_DIFFUSERS])
def test_every_array_of_a_net_has_one_name_in_each_format(name, names):
    pairs = tensors(NETS[name], names)
    assert len({pair.theirs for pair in pairs}) == len(pairs)
    assert sorted(pair.ours for pair in pairs) == sorted([*our_shapes(NETS[name]), "codebook"])


@pytest.mark.parametrize("layout, shape", [("conv", (5, 4, 3, 2)), ("dense", (5, 4))])
def test_a_layout_goes_both_ways(layout, shape):
    array = np.random.default_rng(0).normal(size=shape)
    there = layouts.ours(array, layout)
    assert there.shape[-2:] == (4, 5)
    np.testing.assert_array_equal(layouts.theirs(there, layout), array)


def test_an_array_of_other_axes_has_no_layout():
    with pytest.raises(ValueError, match="it has 2 axes; expected 4"):
        layouts.ours(np.zeros((3, 3)), "conv")
