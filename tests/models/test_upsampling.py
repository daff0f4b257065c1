"""Nearest-neighbour upsampling and a 3x3 convolution: one function in two forms."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import assert_equal_to, derivatives, normal
from jax import lax

from mq_jax.models.upsampling import upsampling_convolution


def doubled(images, kernel):
    pixels = jnp.repeat(jnp.repeat(images, 2, axis=1), 2, axis=2)
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(pixels, kernel, (1, 1), "SAME", dimension_numbers=layout)


def operands(height=2, width=3, dtype=np.float32):
    """Images, a kernel, and a direction of each."""
    shapes = (2, height, width, 3), (3, 3, 3, 5)
    return [normal(i, *shape, dtype=dtype) for i, shape in enumerate(shapes * 2)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("height, width", [(1, 1), (2, 3)])
def test_on_a_cpu_it_equals_the_plain_one_with_all_its_derivatives(height, width):
    given = operands(height, width, np.float64)
    got, want = (
        tiny.jit(lambda f=f: derivatives(f, *given))() for f in (upsampling_convolution, doubled)
    )
    assert_equal_to(1e-12, got, want)


def test_in_bfloat16_the_kernel_is_summed_in_float32_and_so_is_its_gradient():
    images, kernel, *_ = operands()
    images = images.astype(jnp.bfloat16)

    def value_and_gradients(function, images, kernel):
        out, pullback = jax.vjp(function, images, kernel)
        return out, *pullback(jnp.ones_like(out))

    got = tiny.jit(lambda *given: value_and_gradients(upsampling_convolution, *given))(
        images, kernel
    )
    assert [leaf.dtype for leaf in got] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    want = tiny.jit(lambda *given: value_and_gradients(doubled, *given))(
        images.astype(np.float32), kernel
    )
    assert_equal_to(0.02, [leaf.astype(np.float32) for leaf in got], want)


def test_it_is_compiled_once_and_maps_over_a_further_axis():
    images, kernel, *_ = operands()
    compiled = jax.jit(upsampling_convolution)
    first, second = compiled(images, kernel), compiled(2 * images, kernel)
    assert compiled._cache_size() == 1
    mapped = jax.vmap(upsampling_convolution, (0, None))(jnp.stack([images, 2 * images]), kernel)
    assert_equal_to(1e-5, (mapped[0], mapped[1]), (first, second))


def convolutions(text):
    """The results' types of a program's convolutions."""
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    return {line.rpartition("-> ")[2].partition(">")[0] + ">" for line in lines}


@pytest.mark.parametrize("platform, own", [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_programs_for_cpus_hold_its_phases(platform, own):
    images, kernel, *_ = operands()
    lowered = (
        jax.jit(upsampling_convolution).trace(images, kernel).lower(lowering_platforms=(platform,))
    )
    assert convolutions(lowered.as_text()) == {f"tensor<2x{'2x3' if own else '4x6'}x5xf32>"}
    both = jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(upsampling_convolution(x, k))), (0, 1)))
    text = both.trace(images, kernel).lower(lowering_platforms=(platform,)).as_text()
    # Of phases, the kernel's gradient is of 2 x 2.
    assert any("tensor<3x3x" in kind for kind in convolutions(text)) != own
    assert any("tensor<2x2x" in kind for kind in convolutions(text)) == own


def test_a_program_for_several_platforms_holds_either_form():
    _, kernel, *_ = operands()
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, 2, 3, 3), np.float32)
    given = images, jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    program = jax.export.export(jax.jit(upsampling_convolution), platforms=("cpu", "cuda"))(*given)
    assert {"tensor<?x2x3x5xf32>", "tensor<?x4x6x5xf32>"} <= convolutions(program.mlir_module())
    images = normal(7, 4, 2, 3, 3, dtype=np.float32)
    assert_equal_to(1e-5, program.call(images, kernel), doubled(images, kernel))
