"""A codebook through a transformer, against NumPy."""

import functools

import jax
import numpy as np
import pytest
from kinds import jit

from mq_jax.quantizers.bases import is_base
from mq_jax.quantizers.bridge import Bridge

pytestmark = pytest.mark.usefixtures("float64")

SIZE, DIM, EMBEDDING, HIDDEN, PATCH, HEADS, REGISTERS = 12, 4, 3, 8, 4, 2, 2
bridge = functools.partial(
    Bridge, SIZE, DIM, EMBEDDING, HIDDEN, patch=PATCH, heads=HEADS, registers=REGISTERS
)


@functools.cache
def made():
    """(codewords of params, params), in float64."""
    module = bridge(layers=1)
    params = jit(module.init)(jax.random.key(0))["params"]
    params = jax.tree.map(np.float64, params)
    return jit(lambda params: module.apply({"params": params})), params


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def by_hand(p):
    """The codewords, from the formula."""

    def layer(x, p):
        return x @ p["kernel"] + p["bias"]

    tokens = layer(p["embedding"].reshape(SIZE // PATCH, -1), p["compress"])
    tokens = np.concatenate([p["registers"], tokens])
    block = p["block_0"]
    normed = norm(tokens, block["norm_1"])
    width = HIDDEN // HEADS
    attended = []
    for head in range(HEADS):
        q, k, v = (
            layer(normed, block[name])[:, head * width : (head + 1) * width]
            for name in ("query", "key", "value")
        )
        scores = np.exp(q @ k.T / np.sqrt(width))
        attended.append(scores / scores.sum(-1, keepdims=True) @ v)
    tokens = tokens + layer(np.concatenate(attended, -1), block["out"])
    hidden = layer(norm(tokens, block["norm_2"]), block["widen"])
    gelu = hidden / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    tokens = tokens + layer(gelu, block["narrow"])
    return layer(norm(tokens, p["norm"])[REGISTERS:], p["expand"]).reshape(SIZE, DIM)


def test_codewords_are_the_formula():
    codewords, params = made()
    found = codewords(params)
    assert found.shape == (SIZE, DIM)
    np.testing.assert_allclose(found, by_hand(params), rtol=1e-10)


def test_codewords_start_apart():
    codewords, params = made()
    found = np.asarray(codewords(params))
    distances = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert distances[~np.eye(SIZE, dtype=bool)].min() > 0.05


def test_the_number_of_parameters_is_that_of_its_parts():
    _, params = made()
    block = 2 * 2 * HIDDEN + 4 * (HIDDEN + 1) * HIDDEN + (HIDDEN + 1) * 4 * HIDDEN
    block += (4 * HIDDEN + 1) * HIDDEN
    ends = (PATCH * EMBEDDING + 1) * HIDDEN + (HIDDEN + 1) * PATCH * DIM + 2 * HIDDEN
    expected = SIZE * EMBEDDING + REGISTERS * HIDDEN + block + ends
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_what_pulls_one_codeword_moves_all_though_the_base_stays():
    """Gradients of the map are finite differences, and a step along them reaches every row."""
    codewords, params = made()
    module = bridge(layers=1)
    pull = np.arange(1.0, DIM + 1)
    slope = jit(jax.grad(lambda params: module.apply({"params": params})[5] @ pull))(params)
    assert (np.abs(slope["embedding"]).max(-1) > 0).all()
    rng, step = np.random.default_rng(0), 1e-6
    ahead = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    low, high = (
        codewords(jax.tree.map(lambda leaf, to, sign=sign: leaf + sign * step * to, params, ahead))
        for sign in (-1, 1)
    )
    along = sum(jax.tree.leaves(jax.tree.map(lambda *both: np.vdot(*both), slope, ahead)))
    np.testing.assert_allclose(along, (high - low)[5] @ pull / (2 * step), rtol=1e-6)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, leaf, change: leaf if is_base(path) else leaf - change, params, slope
    )
    assert (np.abs(codewords(moved) - codewords(params)).max(-1) > 0).all()


def test_patches_and_heads_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match="12 codewords are bridged in patches of 5; expected a divisor"
    ):
        jax.eval_shape(Bridge(SIZE, DIM, EMBEDDING, HIDDEN, patch=5).init, jax.random.key(0))
    with pytest.raises(ValueError, match="A bridge 8 wide has 3 heads; expected a divisor"):
        jax.eval_shape(
            Bridge(SIZE, DIM, EMBEDDING, HIDDEN, patch=4, heads=3).init, jax.random.key(0)
        )
