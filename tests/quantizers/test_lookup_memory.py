"""What a lookup in a large codebook holds, as XLA plans it: never N x K, in either direction."""

import functools
import operator
import re

import jax
import jax.numpy as jnp
import pytest
import tiny

from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.histogram import code_counts
from mq_jax.quantizers.nearest import BLOCK, nearest_codeword
from mq_jax.quantizers.vq import VQ

N, D, CHUNK = 4096, 32, 256
SIZES = 4096, 65536


def compiled(function, size):
    """Compiled for so many codewords; runs nothing."""
    z, codebook = [jax.ShapeDtypeStruct((rows, D), jnp.float32) for rows in (N, size)]
    return jax.jit(function).lower(z, codebook).compile(compiler_options=tiny.OPTIMIZED)


def temporary(function):
    """Bytes of temporaries at each of SIZES."""
    return [compiled(function, size).memory_analysis().temp_size_in_bytes for size in SIZES]


def lookup(z, codebook):
    return nearest_codeword(z, codebook, chunk=CHUNK)


def assign_and_differentiate(z, codebook):
    """The loss, its gradients and the histogram: everything that a step asks of a quantizer."""

    def loss(z, codebook):
        plain = Codebook("embedding", len(codebook), D, embedding_dim=1, hidden=1)
        quantizer = VQ(plain, functools.partial(nearest_codeword, chunk=CHUNK))
        params = {"embedding": codebook}
        q = quantizer(params, (), z, straight_through="encoder-and-codewords", train=True)
        return q.loss + jnp.sum(jnp.square(q.z_hat)), q.indices

    (value, indices), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        z, codebook
    )
    return value, gradients, code_counts(indices, len(codebook))


@pytest.mark.parametrize("function", [lookup, assign_and_differentiate])
def test_sixteen_times_the_codewords_take_a_sixteenth_of_a_codebook_more(function):
    """The codebook and its gradient are arguments and results, hence no temporaries."""
    small, large = temporary(function)
    assert large - small < SIZES[1] * D * 4 / 16
    assert large < N * SIZES[1] * 4 / 32


def test_the_whole_matrix_would_break_that_bound():
    whole = compiled(nearest_codeword, SIZES[1]).memory_analysis().temp_size_in_bytes
    assert whole >= N * SIZES[1] * 4


def test_no_array_of_a_differentiated_step_is_larger_than_the_codebook_or_the_blocks():
    size = SIZES[1]
    program = compiled(assign_and_differentiate, size).as_text()
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"\w\[([\d,]+)\]", program)}
    sizes = [functools.reduce(operator.mul, shape) for shape in shapes]
    assert max(sizes) == max(size * D, N * BLOCK * D)


def test_the_gradient_of_the_codebook_and_the_histogram_are_scatters():
    program = compiled(assign_and_differentiate, SIZES[1]).as_text()
    assert sorted(re.findall(r"= (\w+\[[\d,]+\])\S* scatter\(", program)) == [
        f"f32[{SIZES[1]},{D}]",
        f"s32[{SIZES[1]}]",
    ]
