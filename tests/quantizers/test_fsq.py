"""Finite scalar quantization against its formula in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal
from kinds import jit

from mq_jax.quantizers.fsq import FSQ

pytestmark = pytest.mark.usefixtures("float64")

LEVELS = [(8, 6, 5), (7, 5, 5, 5, 5), (2, 3, 4), (2, 2)]
every_level = pytest.mark.parametrize("levels", LEVELS)


def by_channel(z, level):
    """(b, db/dz) of one channel, from the formula."""
    reach = (level - 1) * (1 - 1e-3) / 2
    offset = 0.5 if level % 2 == 0 else 0.0
    shift = 0.0 if level == 2 else np.tan(offset / reach)
    slope = reach * (1 - np.tanh(z + shift) ** 2)
    return reach * np.tanh(z + shift) - offset, slope


def encodings(levels, seed=0, scale=2.0):
    return scale * normal(seed, 40, len(levels)).astype(np.float64)


@functools.partial(jit, static_argnums=(0, 2))
def call(levels, z, straight_through="encoder"):
    return FSQ(levels)((), (), z, straight_through=straight_through, train=True)


@functools.partial(jit, static_argnums=(0, 3))
def pulled_back(levels, z, cotangent, straight_through="encoder"):
    """The gradient of z of <cotangent, z_hat>."""

    def z_hat(z):
        return FSQ(levels)((), (), z, straight_through=straight_through, train=True).z_hat

    value, pullback = jax.vjp(z_hat, z)
    return pullback(cotangent.astype(value.dtype))[0]


@every_level
def test_values_and_indices_are_the_formula(levels):
    z = encodings(levels)
    digits = np.stack([np.round(by_channel(z[:, i], n)[0]) for i, n in enumerate(levels)], -1)
    halves = np.array([level // 2 for level in levels])
    index = sum(
        (digits[:, i] + halves[i]) * np.prod(levels[:i], dtype=int) for i in range(len(levels))
    )
    q = call(levels, z)
    np.testing.assert_allclose(q.z_q, digits / halves, rtol=1e-12)
    np.testing.assert_array_equal(q.indices, index)
    assert q.loss == 0.0 and q.terms == {}


@every_level
def test_z_gets_the_slope_of_the_bound_and_no_other(levels):
    """g b'(z) / floor(L / 2); rounding passes it by."""
    z, cotangent = encodings(levels), encodings(levels, seed=1)
    slopes = [by_channel(z[:, i], level)[1] / (level // 2) for i, level in enumerate(levels)]
    expected = cotangent * np.stack(slopes, -1)
    np.testing.assert_allclose(pulled_back(levels, z, cotangent), expected, rtol=1e-9, atol=1e-15)


@every_level
def test_all_codes_round_trip_the_first_channel_fastest(levels):
    quantizer = FSQ(levels)
    table = np.asarray(quantizer.codewords(()))
    halves = np.array([level // 2 for level in levels])
    digits = [range(level) for level in reversed(levels)]
    rows = np.array([row[::-1] for row in itertools.product(*digits)])
    np.testing.assert_allclose(table, (rows - halves) / halves, rtol=1e-12)
    assert len(table) == quantizer.size == np.prod(levels)
    # What the bound takes to each code; to the outermost ones nothing quite does.
    reach = (np.array(levels) - 1) * (1 - 1e-3) / 2
    offset = np.where(np.array(levels) % 2, 0.0, 0.5)
    shift = np.where(offset < reach, np.tan(offset / reach), 0.0)
    z = np.arctanh(np.clip((table * halves + offset) / reach, -0.9999, 0.9999)) - shift
    np.testing.assert_array_equal(quantizer.encode((), z), np.arange(len(table)))


@pytest.mark.parametrize("level", range(2, 17))
def test_every_level_is_within_reach_and_odd_ones_decode_to_plus_one(level):
    z = np.linspace(-9, 9, 20001)[:, None]
    found = np.unique(FSQ((level,)).encode((), z))
    np.testing.assert_array_equal(found, np.arange(level))
    table = np.asarray(FSQ((level,)).codewords(()))[:, 0]
    assert table[0] == -1.0 and table[level // 2] == 0.0
    if level % 2:
        assert table[-1] == 1.0


def test_two_levels_part_at_zero():
    z = np.array([[-1.0], [-1e-3], [1e-3], [1.0]])
    np.testing.assert_array_equal(FSQ((2,)).encode((), z), [0, 0, 1, 1])


def test_bfloat16_is_rounded_in_float32():
    """In bfloat16 a bound of 3.497 is 3.5: another code."""
    z = jnp.asarray(encodings((8, 8), scale=4.0), jnp.bfloat16)
    quantizer = FSQ((8, 8))
    q = call((8, 8), z)
    np.testing.assert_array_equal(q.indices, quantizer.encode((), z.astype(jnp.float32)))
    assert pulled_back((8, 8), z, z).dtype == jnp.bfloat16


def test_the_estimators_act_between_the_bound_and_the_code():
    """diveq: (I - u v^T) g of the bounded value, then its slope."""
    levels = (8, 5, 5)
    z, cotangent = encodings(levels), encodings(levels, seed=1)
    parts = [by_channel(z[:, i], level) for i, level in enumerate(levels)]
    halves = np.array([level // 2 for level in levels])
    bounded, slopes = (np.stack(part, -1) / halves for part in zip(*parts, strict=True))
    u = np.asarray(call(levels, z).z_q) - bounded
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    expected = slopes * (cotangent - u * np.sum(u * cotangent, -1, keepdims=True))
    found = pulled_back(levels, z, cotangent, "diveq")
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("levels", [(), (1, 5), (5, 0), (5, 1001)])
def test_levels_that_cannot_be_rounded_to_are_refused(levels):
    with pytest.raises(ValueError, match="FSQ has levels .*; expected each in"):
        FSQ(levels)


def test_more_codes_than_an_index_holds_are_refused():
    assert FSQ((2,) * 30).size == 2**30
    with pytest.raises(ValueError, match="codes; expected fewer than 2"):
        FSQ((2,) * 31)
