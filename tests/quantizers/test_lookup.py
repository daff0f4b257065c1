"""The lookup on a mesh equals the lookup on one device, on every mesh and under every transform."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from arrays import normal

from mq_jax.devices import sharding
from mq_jax.quantizers.lookup import make_lookup
from mq_jax.quantizers.nearest import BLOCK, nearest_codeword

MESHES = (8, 1), (4, 2), (2, 4), (1, 8)


def compiled(mesh, sharded, chunk, z, codebook):
    """The lookup compiled for rows over all devices and codewords over `fsdp`."""
    where = sharding.split(mesh), sharding.shardings(codebook, mesh, shard_from=0)
    arguments = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
        for x, s in zip((z, codebook), where, strict=True)
    ]
    lookup = make_lookup(mesh, chunk=chunk, sharded=sharded)
    return tiny.jit(lookup).lower(*arguments).compile(), where


def largest_array(program):
    """Numbers in the largest array of a compiled program."""
    shapes = re.findall(r"\w\[([\d,]+)\]", program.as_text())
    return max(np.prod([int(side) for side in shape.split(",")]) for shape in shapes)


@pytest.mark.parametrize("chunk", [0, BLOCK])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("shape", MESHES)
def test_every_mesh_finds_what_one_device_finds(shape, sharded, chunk):
    mesh = sharding.make_mesh(*shape)
    z, codebook = normal(0, 16, 3, 3, 5), normal(1, 16 * BLOCK, 5)
    program, where = compiled(mesh, sharded, chunk, z, codebook)
    indices = program(*jax.device_put((z, codebook), where))
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(indices, nearest_codeword(z, codebook))


@pytest.mark.parametrize("shape", MESHES)
def test_ties_go_to_the_lowest_index_across_devices(shape):
    """Small integers: exact scores, and every codeword occurs on several devices."""
    rng = np.random.default_rng(0)
    codebook = rng.integers(-1, 2, (64, 2)).astype(np.float32)
    codebook[:8] = 5
    z = rng.integers(-4, 5, (96, 2)).astype(np.float32) / 2
    lookup = make_lookup(sharding.make_mesh(*shape), chunk=0, sharded=True)
    distances = np.sum((z[:, None] - codebook) ** 2, axis=-1)
    np.testing.assert_array_equal(tiny.jit(lookup)(z, codebook), np.argmin(distances, axis=1))


@pytest.mark.parametrize("rows", [1, 13])
def test_any_number_of_rows_is_looked_up(rows):
    z, codebook = normal(0, rows, 5), normal(1, 64, 5)
    lookup = make_lookup(sharding.make_mesh(2, 4), chunk=0, sharded=True)
    np.testing.assert_array_equal(tiny.jit(lookup)(z, codebook), nearest_codeword(z, codebook))


def test_a_device_holds_a_share_of_the_codewords_and_exchanges_no_codeword():
    z, codebook = normal(0, 64, 8), normal(1, 4096, 8)
    program, _ = compiled(sharding.make_mesh(2, 4), True, BLOCK, z, codebook)
    whole, _ = compiled(sharding.make_mesh(2, 4), False, BLOCK, z, codebook)
    assert largest_array(program) < codebook.size
    assert largest_array(whole) == codebook.size
    assert whole.as_text().count(" all-gather(") == 1


def test_no_device_holds_rows_times_codewords_as_k_grows():
    mesh, temporary = sharding.make_mesh(2, 4), []
    for size in (4096, 65536):
        program, _ = compiled(mesh, True, 256, normal(0, 1024, 32), normal(1, size, 32))
        temporary.append(program.memory_analysis().temp_size_in_bytes)
    assert temporary[1] - temporary[0] < (65536 - 4096) / 4 * 32 * 4


@pytest.mark.parametrize("sharded", [False, True])
def test_the_lookup_serves_differentiated_code_on_a_mesh(sharded):
    """Gradients are those of z_q = C[indices] with the indices held fixed; tangents are none."""
    lookup = make_lookup(sharding.make_mesh(2, 4), chunk=BLOCK, sharded=sharded)
    z, codebook = normal(0, 16, 5), normal(1, 8 * BLOCK, 5)
    indices = np.asarray(nearest_codeword(z, codebook))

    def loss(z, codebook):
        return jnp.sum(jnp.square(z - codebook[lookup(z, codebook)]))

    def gradients(z, codebook):
        gradient = jax.grad(loss, argnums=(0, 1))
        return jax.jvp(gradient, (z, codebook), (z, jnp.zeros_like(codebook)))

    (to_z, to_codebook), (to_z_along_z, _) = tiny.jit(gradients)(z, codebook)
    expected = np.zeros_like(codebook)
    np.add.at(expected, indices, -2 * (z - codebook[indices]))
    np.testing.assert_allclose(to_z, 2 * (z - codebook[indices]), rtol=1e-5)
    np.testing.assert_allclose(to_codebook, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_z_along_z, 2 * z, rtol=1e-5)
    tangents = jax.eval_shape(lambda *a: jax.jvp(lookup, a, a)[1], z, codebook)
    assert tangents.dtype == jax.dtypes.float0


def test_a_codebook_that_fsdp_does_not_divide_is_refused():
    lookup = make_lookup(sharding.make_mesh(2, 4), chunk=0, sharded=True)
    with pytest.raises(ValueError, match="has 10 codewords; expected a multiple of config.mesh"):
        jax.eval_shape(lookup, normal(0, 8, 3), normal(1, 10, 3))


@pytest.mark.parametrize("sharded", [False, True])
def test_channels_that_disagree_are_refused(sharded):
    lookup = make_lookup(sharding.make_mesh(2, 4), chunk=0, sharded=sharded)
    with pytest.raises(ValueError, match="z has 3 channels and the codebook 4"):
        jax.eval_shape(lookup, normal(0, 8, 3), normal(1, 8, 4))
