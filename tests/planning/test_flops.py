"""Operations read from XLA's text against closed forms and against XLA's own count."""

import functools

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax.sharding import NamedSharding, PartitionSpec

from mq_jax.devices import sharding
from mq_jax.planning import flops, hlo, hlo_merge
from mq_jax.quantizers.nearest import nearest_codeword

NHWC = ("NHWC", "HWIO", "NHWC")


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolution(stride=1, padding="VALID", **settings):
    return functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=NHWC,
        **settings,
    )


def gradients(function):
    return jax.grad(lambda *args: jnp.sum(function(*args) ** 2), argnums=(0, 1))


def scan(x, kernels):
    return jax.lax.scan(lambda x, kernel: (x @ kernel, None), x, kernels)[0]


# Pairs of an output and a kernel position that meet a pixel, along one axis: `same` 3 wide over
# 8 pixels has 8 + 7 + 7; with stride 2 and one pixel at the end 4 + 4 + 3.
IMAGE, KERNEL = f32(2, 8, 8, 3), f32(3, 3, 3, 5)
CASES = {
    "product": (jnp.matmul, (f32(4, 6), f32(6, 5)), 2 * 4 * 6 * 5),
    "batched product": (
        functools.partial(jnp.einsum, "bqc,bkc->bqk"),
        (f32(3, 4, 6), f32(3, 5, 6)),
        2 * 3 * 4 * 5 * 6,
    ),
    "valid": (convolution(), (IMAGE, KERNEL), 2 * 2 * 18**2 * 3 * 5),
    "same": (convolution(padding="SAME"), (IMAGE, KERNEL), 2 * 2 * 22**2 * 3 * 5),
    "strided": (
        convolution(2, ((0, 1), (0, 1))),
        (IMAGE, KERNEL),
        2 * 2 * 11**2 * 3 * 5,
    ),
    "transposed": (
        # Every input pixel meets every kernel position but those that fall off the edges.
        convolution(padding=((2, 2), (2, 2)), lhs_dilation=(2, 2)),
        (IMAGE, f32(4, 4, 3, 5)),
        2 * 2 * (8 * 4 - 2) ** 2 * 3 * 5,
    ),
    "dilated": (convolution(rhs_dilation=(2, 2)), (IMAGE, KERNEL), 2 * 2 * 12**2 * 3 * 5),
    "grouped": (
        convolution(feature_group_count=3),
        (IMAGE, f32(3, 3, 1, 6)),
        2 * 2 * 18**2 * 1 * 6,
    ),
    # A gradient pairs the same pixels and weights: forward, and one pass for each argument.
    "gradients of strided": (
        gradients(convolution(2, ((0, 1), (0, 1)))),
        (IMAGE, KERNEL),
        3 * 2 * 2 * 11**2 * 3 * 5,
    ),
    "loop": (scan, (f32(4, 6), f32(7, 6, 6)), 7 * 2 * 4 * 6 * 6),
    "lookup": (nearest_codeword, (f32(50, 4), f32(96, 4)), 2 * 50 * 96 * 4),
    "lookup in chunks": (
        functools.partial(nearest_codeword, chunk=32),
        (f32(50, 4), f32(96, 4)),
        2 * 50 * 96 * 4,
    ),
}


def matrix(instructions):
    return sum(found.matrix for found in flops.by_part(instructions).values())


@pytest.mark.parametrize("name", CASES)
def test_convolutions_and_products_are_counted_as_in_the_closed_form(name):
    function, shapes, expected = CASES[name]
    lowered = tiny.jit(function).lower(*shapes)
    traced = hlo.parse(lowered.as_text("hlo", debug_info=True))
    assert matrix(hlo.executed(traced)) == expected
    assert matrix(hlo_merge.merged(traced)) == expected
    assert matrix(hlo.executed(hlo.parse(lowered.compile().as_text()))) == expected


@pytest.mark.parametrize(
    "name", ["product", "batched product", "valid", "same", "strided", "transposed", "grouped"]
)
def test_the_count_is_that_of_xla(name):
    function, shapes, expected = CASES[name]
    assert jax.jit(function).lower(*shapes).cost_analysis()["flops"] == expected


def test_xla_counts_a_loop_once_which_is_why_the_text_is_read():
    function, shapes, expected = CASES["loop"]
    assert jax.jit(function).lower(*shapes).cost_analysis()["flops"] < expected / 5


PRODUCT = 2 * 4**3


@pytest.mark.parametrize(
    "function, products",
    [
        (lambda x: x @ x + x @ x, 1),
        (lambda x: (x @ x) @ (x @ x), 2),
        (lambda x: jax.jit(lambda y: y @ y)(x) + jax.jit(lambda y: y @ y)(x), 1),
        (lambda x: jax.jit(lambda y: (y @ y, y + 1))(x)[1], 0),
        (lambda x: (x @ x.T, x + 1)[1], 0),
        # The gradient of a function of tanh(x x) needs x x again where it is not kept.
        (jax.grad(lambda x: jnp.sum(jnp.tanh(x @ x))), 3),
        (jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.tanh(x @ x))(x))), 3),
        (jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.tanh(x @ x))(x) @ x)), 6),
        (lambda x: sum(scan(x, jnp.stack([x] * 3)) for _ in range(2)), 3),
    ],
)
def test_what_is_computed_twice_counts_once_unless_it_is_rematerialised(function, products):
    lowered = jax.jit(function).lower(f32(4, 4))
    traced = hlo.parse(lowered.as_text("hlo", debug_info=True))
    assert matrix(hlo_merge.merged(traced)) == products * PRODUCT
    # XLA agrees.
    options = {"xla_disable_hlo_passes": "cse_barrier_expander"}
    compiled = lowered.compile(compiler_options=options).as_text()
    assert matrix(hlo.executed(hlo.parse(compiled))) == products * PRODUCT


def test_elementwise_operations_are_those_of_results_and_of_what_is_summed():
    text = jax.jit(lambda x: jnp.sum(x * x)).lower(f32(6, 7)).as_text("hlo", debug_info=True)
    (found,) = [v for v in flops.by_part(hlo.executed(hlo.parse(text))).values() if v.elementwise]
    assert found == flops.Flops(0, 2 * 42)


@pytest.mark.parametrize(
    "path, part",
    [
        ("jit(step)/transpose(jvp(AutoEncoder.encode))/encoder/Conv_0/conv", "encoder"),
        ("jit(step)/AutoEncoder.pixels/decoder.pixels/head/conv", "decoder"),
        ("mul\njit(step)/jvp(lpips)/mul", "LPIPS"),
        ("jit(step)/Codebook/net_in/dot\njit(step)/jvp(lpips)/mul", "hyper-net"),
        ("jit(step)/add", flops.REST),
        ("", flops.REST),
    ],
)
def test_the_innermost_name_tells_the_part(path, part):
    assert flops.part_of(path) == part


def compiled_on_eight(function, *places):
    mesh = sharding.make_mesh(2, 4, jax.devices()[:8])
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*p)))
        for shape, *p in places
    ]
    out = sharding.replicated(mesh)
    text = tiny.jit(function, out_shardings=out).lower(*shapes).compile().as_text()
    return hlo.traffic(hlo.parse(text))


def test_a_sum_over_split_rows_reduces_its_result():
    found = compiled_on_eight(
        lambda x, y: x.T @ y, ((16, 6), sharding.AXES), ((16, 5), sharding.AXES)
    )
    assert found == {"all-reduce": hlo.Traffic(1, 4 * 6 * 5)}


def test_a_split_matrix_is_gathered_whole():
    found = compiled_on_eight(lambda x: x, ((16, 6), "fsdp"))
    assert found == {"all-gather": hlo.Traffic(1, 4 * 16 * 6)}


def test_collectives_in_a_loop_count_at_each_trip():
    def loop(x, y):
        return jax.lax.scan(
            lambda c, y: (jnp.tanh(c + x.T @ (y + x * c[0, 0])), None), y[0, :6], y
        )[0]

    found = compiled_on_eight(loop, ((16, 6), sharding.AXES), ((5, 16, 6), None, sharding.AXES))
    assert found["all-reduce"].count >= 5


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("HloModule nothing")


@pytest.mark.parametrize(
    "array, size",
    [
        (hlo.Array("f32", (3, 4)), 48),
        (hlo.Array("bf16", (3,)), 6),
        (hlo.Array("pred", ()), 1),
        (hlo.Array("s64", (2,)), 16),
        (hlo.Array("f8e4m3fn", (5,)), 5),
        (hlo.Array("token", ()), 0),
    ],
)
def test_bytes_of_a_type(array, size):
    assert array.bytes == size
