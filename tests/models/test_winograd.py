"""Winograd's 3x3 convolution against XLA's own, in every order of differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import assert_equal_to, derivatives, normal
from jax import lax
from programs import inexact, products

from mq_jax.models import winograd
from mq_jax.models.convolution import pointwise_convolution
from mq_jax.models.vqvae import AutoEncoder

LAYOUT = ("NHWC", "HWIO", "NHWC")


def plain(images, kernel):
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)


def operands(dtype=np.float64):
    """Images, a kernel that keeps their scale, and a direction of each."""
    shapes = ((2, 4, 6, 32), (3, 3, 32, 33))
    images, kernel, *directions = [
        normal(i, *shape, dtype=dtype) for i, shape in enumerate(shapes * 2)
    ]
    return [images, kernel / 17, *directions]


@pytest.mark.usefixtures("float64")
def test_it_is_the_plain_convolution_with_all_its_derivatives():
    given = operands()
    got, want = (
        tiny.jit(lambda f=f: derivatives(f, *given))() for f in (winograd.convolution, plain)
    )
    assert_equal_to(1e-12, got, want)


def test_in_float32_it_is_the_plain_convolution_to_a_hundred_thousandth():
    given = operands(np.float32)
    got, want = (
        tiny.jit(lambda f=f: derivatives(f, *given))() for f in (winograd.convolution, plain)
    )
    assert_equal_to(1e-5, got, want)


def test_it_is_compiled_once_and_maps_over_a_further_axis():
    images, kernel, *_ = operands(np.float32)
    compiled = jax.jit(winograd.convolution)
    first, second = compiled(images, kernel), compiled(2 * images, kernel)
    assert compiled._cache_size() == 1
    mapped = jax.vmap(winograd.convolution, (0, None))(jnp.stack([images, 2 * images]), kernel)
    assert_equal_to(1e-5, (mapped[0], mapped[1]), (first, second))


@pytest.mark.parametrize("platform, own", [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_programs_for_cpus_hold_it(platform, own):
    images, kernel, *_ = operands(np.float32)
    both = jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(winograd.convolution(x, k))), (0, 1)))
    text = both.trace(images, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) != own


@pytest.mark.parametrize("platform, own", [("cpu", True), ("cuda", False)])
def test_that_of_a_measure_is_the_plain_one_and_exact_on_every_device(platform, own):
    images, kernel, *_ = operands(np.float32)
    measuring = jax.jit(winograd.measuring_convolution)
    assert_equal_to(1e-5, measuring(images, kernel), plain(images, kernel))
    lowered = measuring.trace(images, kernel).lower(lowering_platforms=(platform,))
    assert ("stablehlo.convolution" in lowered.as_text()) != own
    assert products(lowered) and inexact(products(lowered)) == set()


@pytest.mark.parametrize("shape", [(1, 3, 4, 32), (1, 4, 3, 32), (1, 4, 4, 31)])
def test_odd_sides_and_few_channels_are_left_to_xla(shape):
    kernel = jnp.zeros((3, 3, shape[-1], 64))
    assert "winograd" not in str(jax.make_jaxpr(winograd.convolution)(jnp.zeros(shape), kernel))


@pytest.mark.parametrize("train", [True, False])
def test_every_pass_of_the_auto_encoder_takes_it(train):
    model = AutoEncoder((8, 32), 1, dim=6, layer_norm=False, init_std=0.02)
    images, key = jnp.zeros((1, 8, 8, 3)), jax.random.key(0)
    variables = jax.eval_shape(lambda: model.init(key, images, train=True))
    assert variables["params"]["encoder"]["Conv_2"]["kernel"].shape == (3, 3, 32, 32)

    def run(variables):
        return model.apply(variables, images, train=train, mutable=["batch_stats"])

    assert "winograd" in str(jax.make_jaxpr(run)(variables))


@pytest.mark.usefixtures("float64")
def test_the_pointwise_convolution_is_the_plain_one_with_its_gradients():
    images, kernel, cotangent = normal(0, 2, 3, 4, 5), normal(1, 1, 1, 5, 6), normal(2, 2, 3, 4, 6)

    def value_and_gradients(function):
        value, pullback = jax.vjp(function, images, kernel)
        return value, *pullback(cotangent)

    own = lambda x, k: pointwise_convolution(x, k, precision=None)  # noqa: E731
    assert_equal_to(1e-12, value_and_gradients(own), value_and_gradients(plain))
