"""The transposed convolution against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import normal
from jax import lax

from mq_jax.models.convolution import Upsample, transposed_convolution

pytestmark = pytest.mark.usefixtures("float64")

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (5, 4), (8, 8)])
def test_the_transposed_convolution_is_the_dilated_one_with_its_gradients(height, width):
    images, kernel = normal(0, 2, height, width, 3), normal(1, 4, 4, 3, 5)
    cotangent = normal(2, 2, 2 * height, 2 * width, 5)

    def dilated(images, kernel):
        padding = ((2, 2), (2, 2))
        return lax.conv_general_dilated(
            images, kernel, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=LAYOUT
        )

    def library(images, kernel):
        return lax.conv_transpose(images, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT)

    def value_and_gradients(function):
        value, pullback = jax.vjp(function, images, kernel)
        return value, *pullback(cotangent)

    got = tiny.jit(lambda: value_and_gradients(transposed_convolution))()
    for reference in (dilated, library):
        want = tiny.jit(lambda reference=reference: value_and_gradients(reference))()
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_it_is_the_transpose_of_the_strided_convolution_with_the_kernel_turned():
    small, large, kernel = normal(0, 2, 3, 4, 3), normal(1, 2, 6, 8, 5), normal(2, 4, 4, 3, 5)
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    strided = lax.conv_general_dilated(
        large, turned, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT
    )
    np.testing.assert_allclose(
        jnp.vdot(transposed_convolution(small, kernel), large), jnp.vdot(small, strided)
    )


@pytest.mark.parametrize("use_bias", [False, True])
def test_upsampling_doubles_the_sides_and_adds_a_bias_where_asked(use_bias):
    layer = Upsample(5, jax.nn.initializers.ones, use_bias)
    images = normal(0, 2, 3, 4, 6)
    out, variables = tiny.jit(layer.init_with_output)(jax.random.key(0), images)
    assert out.shape == (2, 6, 8, 5)
    assert ("bias" in variables["params"]) == use_bias
    if use_bias:
        shifted = {"params": {**variables["params"], "bias": jnp.arange(5.0)}}
        np.testing.assert_allclose(
            layer.apply(shifted, images) - out, jnp.broadcast_to(jnp.arange(5.0), out.shape), 1e-4
        )
