"""A codebook through a transformer, against NumPy."""

import functools

import jax
import numpy as np
import pytest
from kinds import jit

from mq_jax.quantizers.bridge import Bridge

SIZE, DIM, EMBEDDING, HIDDEN, PATCH, HEADS, REGISTERS = 12, 4, 3, 8, 4, 2, 2
bridge = functools.partial(
    Bridge, SIZE, DIM, EMBEDDING, HIDDEN, patch=PATCH, heads=HEADS, registers=REGISTERS
)


@functools.cache
def made():
    codewords, variables = jit(bridge(layers=1).init_with_output)(jax.random.key(0))
    return np.asarray(codewords), jax.tree.map(np.float64, variables["params"])


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
    assert codewords.shape == (SIZE, DIM)
    np.testing.assert_allclose(codewords, by_hand(params), rtol=1e-4, atol=1e-5)


def test_codewords_start_apart():
    codewords, _ = made()
    distances = np.linalg.norm(codewords[:, None] - codewords[None], axis=-1)
    assert distances[~np.eye(SIZE, dtype=bool)].min() > 0.05


def test_the_number_of_parameters_is_that_of_its_parts():
    _, params = made()
    block = 2 * 2 * HIDDEN + 4 * (HIDDEN + 1) * HIDDEN + (HIDDEN + 1) * 4 * HIDDEN
    block += (4 * HIDDEN + 1) * HIDDEN
    ends = (PATCH * EMBEDDING + 1) * HIDDEN + (HIDDEN + 1) * PATCH * DIM + 2 * HIDDEN
    expected = SIZE * EMBEDDING + REGISTERS * HIDDEN + block + ends
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_one_code_is_in_the_gradient_of_every_base_row():
    """Tokens attend to each other: what pulls one codeword moves all."""
    _, params = made()
    module = bridge(layers=1)

    @jit
    def slope(params):
        def first(params):
            return module.apply({"params": params})[0].sum()

        return jax.grad(first)(params)

    found = slope(jax.tree.map(np.float32, params))
    assert (np.abs(found["embedding"]).max(-1) > 0).all()
    assert (np.abs(found["registers"]).max(-1) > 0).all()


def test_patches_and_heads_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match="12 codewords are bridged in patches of 5; expected a divisor"
    ):
        jax.eval_shape(Bridge(SIZE, DIM, EMBEDDING, HIDDEN, patch=5).init, jax.random.key(0))
    with pytest.raises(ValueError, match="A bridge 8 wide has 3 heads; expected a divisor"):
        jax.eval_shape(
            Bridge(SIZE, DIM, EMBEDDING, HIDDEN, patch=4, heads=3).init, jax.random.key(0)
        )
