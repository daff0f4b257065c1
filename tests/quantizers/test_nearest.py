"""The lookup against brute force: ties, precision, chunks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import brute_force, normal

from mq_jax.quantizers.nearest import BLOCK, nearest_codeword

lookup = jax.jit(nearest_codeword, static_argnames="chunk")


@pytest.mark.parametrize(
    "size, chunk",
    [
        (1, 0),
        (5, 0),
        (BLOCK, 0),
        (2 * BLOCK, 0),
        (2 * BLOCK + 1, 0),
        (1, 1),
        (5, 2),
        (5, 5),
        (5, 100),
        (3 * BLOCK, BLOCK),
        (3 * BLOCK, BLOCK - 1),
        (3 * BLOCK + 7, 2 * BLOCK),
        (100, 1),
        (100, 33),
        (100, 99),
        (1000, 1),
        (1000, 100),
        (1024, 256),
    ],
)
def test_the_lookup_equals_brute_force(size, chunk):
    z, codebook = normal(0, 3, 4, 5, 6), normal(1, size, 6)
    indices = lookup(z, codebook, chunk=chunk)
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(indices, brute_force(z, codebook))


@pytest.mark.parametrize("chunk", [1, 7, BLOCK, 50, 2 * BLOCK, 511, 512, 600])
def test_a_chunked_lookup_equals_the_whole_one(chunk):
    z, codebook = normal(0, 200, 8), normal(1, 512, 8)
    np.testing.assert_array_equal(lookup(z, codebook, chunk=chunk), lookup(z, codebook))


@pytest.mark.parametrize("size", [3 * BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("chunk", [0, 1, 10, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_ties_go_to_the_lowest_index(size, chunk):
    """Small integers, so that equal distances are equal in float32, across every border."""
    rng = np.random.default_rng(0)
    codebook = rng.integers(-1, 2, (size, 2)).astype(np.float32)
    # The first occurrences lie apart: without this all ties would end within one block.
    codebook[: BLOCK - 1] = 5
    codebook[BLOCK + 2 : 2 * BLOCK - 1] = 5
    z = rng.integers(-4, 5, (300, 2)).astype(np.float32) / 2
    np.testing.assert_array_equal(lookup(z, codebook, chunk=chunk), brute_force(z, codebook))


@pytest.mark.parametrize("chunk", [0, 3, BLOCK])
@pytest.mark.parametrize("first, second", [(0, 1), (BLOCK - 1, BLOCK), (2, 3), (5, 3 * BLOCK - 1)])
def test_of_two_equal_codewords_the_first_is_found(first, second, chunk):
    codebook = normal(0, 3 * BLOCK, 7)
    codebook[second] = codebook[first]
    assert lookup(codebook[second], codebook, chunk=chunk) == first


@pytest.mark.parametrize("chunk", [0, BLOCK])
def test_distances_are_float32_where_encodings_are_bfloat16(chunk):
    """Two codewords whose distances are equal in bfloat16: the nearer one comes second."""
    z = jnp.ones((1, 8), jnp.bfloat16)
    codebook = np.full((BLOCK + 5, 8), 3, np.float32)
    codebook[1], codebook[BLOCK + 1] = 1.002, 1.001
    assert lookup(z, codebook, chunk=chunk) == BLOCK + 1
    program = lookup.lower(z, codebook, chunk=chunk).as_text()
    assert "dot_general" in program and not re.search("dot_general.*bf16", program)


@pytest.mark.parametrize("chunk", [0, BLOCK])
def test_an_encoding_that_is_not_finite_still_has_a_code(chunk):
    z = np.array([[np.nan, 0], [np.inf, 0], [1, 2]], np.float32)
    indices = lookup(z, normal(1, 2 * BLOCK + 3, 2), chunk=chunk)
    assert np.all((indices >= 0) & (indices < 2 * BLOCK + 3))


@pytest.mark.parametrize("chunk", [0, 4])
def test_channels_that_disagree_are_refused(chunk):
    message = "z has 3 channels and the codebook 4; expected equal."
    with pytest.raises(ValueError, match=message):
        nearest_codeword(normal(0, 2, 3), normal(1, 8, 4), chunk=chunk)


@pytest.mark.parametrize("chunk", [0, BLOCK])
def test_the_lookup_is_not_differentiated(chunk):
    def assign(z, codebook):
        return nearest_codeword(z, codebook, chunk=chunk)

    def products(function, *args):
        return str(jax.make_jaxpr(function)(*args)).count("dot_general")

    arguments = normal(0, 5, 3), normal(1, 2 * BLOCK + 1, 3)
    indices, tangents = jax.jvp(assign, arguments, arguments)
    np.testing.assert_array_equal(indices, assign(*arguments))
    assert tangents.dtype == jax.dtypes.float0
    assert products(assign, *arguments) == 1
    assert products(lambda *a: jax.jvp(assign, a, a)[0], *arguments) == 1
