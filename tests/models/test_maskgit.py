"""MaskGIT's auto-encoder: its arrays and what it refuses; its numbers are in tests/peers."""

import jax
import jax.numpy as jnp
import pytest

from mq_jax.models.maskgit import AutoEncoder


def shapes(sides=(16, 32), **changes):
    """Of the parameters, by their paths, and of what comes out."""
    settings = {
        **{"channels": 8, "multipliers": (1, 2, 2), "blocks": 1, "dim": 3, "groups": 4},
        **{"layer_norm": False, "init_std": 0.0, "dtype": jnp.float32, "remat": False},
    }
    module, images = AutoEncoder(**{**settings, **changes}), jnp.zeros((1, *sides, 3))

    def both():
        out, variables = module.init_with_output(jax.random.key(0), images, train=False)
        z = module.apply(variables, images, train=False, method="encode")
        return variables["params"], z, out

    params, z, out = jax.eval_shape(both)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = {"/".join(part.key for part in path): leaf.shape for path, leaf in leaves}
    return named, z.shape, out.shape


def test_convolutions_of_blocks_have_no_bias_and_a_shortcut_is_of_the_new_width():
    named, z, out = shapes()
    assert (z, out) == ((1, 4, 8, 3), (1, 16, 32, 3))
    blocks = [name for name in named if "MaskGITBlock" in name and name.endswith("bias")]
    assert blocks and all("GroupNorm" in name for name in blocks)
    shortcuts = {name: shape for name, shape in named.items() if "shortcut" in name}
    assert shortcuts == {
        "encoder/level_1/MaskGITBlock_0/shortcut/kernel": (1, 1, 16, 16),
        "decoder/level_0/MaskGITBlock_0/shortcut/kernel": (1, 1, 8, 8),
    }


def test_arrays_are_the_same_however_it_computes():
    assert shapes(remat=True, dtype=jnp.bfloat16) == shapes()


def test_what_else_an_encoder_may_give():
    assert shapes(log_variances=True)[1] == (1, 4, 8, 6)
    assert shapes(layer_norm=True)[0]["encoder/LayerNorm_0/scale"] == (3,)


def test_sides_and_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="images are 16 x 18 pixels; expected multiples of the"):
        shapes(sides=(16, 18))
    with pytest.raises(ValueError, match="groups = 5 does not divide a width of 8"):
        shapes(groups=5)
