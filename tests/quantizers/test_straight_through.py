"""Straight-through estimators against their closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal

from mq_jax.quantizers.straight_through import STRAIGHT_THROUGH, apply_straight_through

pytestmark = pytest.mark.usefixtures("float64")


def double(seed, *shape):
    return normal(seed, *shape).astype(np.float64)


def estimate(kind, z, z_q, cotangent, **options):
    """(z_hat, gradient of z, gradient of z_q)."""
    estimator = functools.partial(apply_straight_through, kind=kind, **options)
    z_hat, pullback = jax.vjp(estimator, jnp.asarray(z), jnp.asarray(z_q))
    return z_hat, *pullback(jnp.asarray(cotangent))


@pytest.mark.parametrize("kind, to_codewords", [("encoder", 0.0), ("encoder-and-codewords", 1.0)])
def test_the_estimator_has_the_value_of_the_codewords_and_slope_one_in_z(kind, to_codewords):
    z, z_q, cotangent = double(0, 4, 3), double(1, 4, 3), double(2, 4, 3)
    z_hat, to_z, to_z_q = estimate(kind, z, z_q, cotangent)
    np.testing.assert_allclose(z_hat, z_q, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(to_z, cotangent)
    np.testing.assert_array_equal(to_z_q, to_codewords * cotangent)


def test_every_estimator_is_in_a_table_of_this_file():
    assert STRAIGHT_THROUGH == ("encoder", "encoder-and-codewords", "rotation", "diveq")


def rotation_between(e, q):
    """The rotation that turns e to q and leaves what is orthogonal to both alone."""
    across = q - (e @ q) * e
    sine = np.linalg.norm(across)
    f, cosine = across / sine, e @ q
    plane = np.stack([e, f], axis=1)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.eye(len(e)) + plane @ (turn - np.eye(2)) @ plane.T


@pytest.mark.parametrize("dim", [2, 5])
def test_rotation_turns_z_onto_its_codeword_and_the_gradient_back(dim):
    """z gets lambda R^T g, its codeword nothing."""
    z, z_q, cotangent = double(0, 4, dim), double(1, 4, dim), double(2, 4, dim)
    z_hat, to_z, to_z_q = estimate("rotation", z, z_q, cotangent)
    np.testing.assert_allclose(z_hat, z_q, rtol=1e-10)
    np.testing.assert_array_equal(to_z_q, 0.0)
    for row in range(4):
        lengths = np.linalg.norm(z[row]), np.linalg.norm(z_q[row])
        turn = rotation_between(z[row] / lengths[0], z_q[row] / lengths[1])
        np.testing.assert_allclose(turn @ turn.T, np.eye(dim), atol=1e-12)
        expected = lengths[1] / lengths[0] * turn.T @ cotangent[row]
        np.testing.assert_allclose(to_z[row], expected, rtol=1e-9, atol=1e-12)


def test_rotation_keeps_the_angle_between_gradient_and_codeword():
    """What the method is for: the pull seen from z is the pull seen from its codeword."""
    z, z_q, cotangent = double(3, 4, 3), double(4, 4, 3), double(5, 4, 3)
    _, to_z, _ = estimate("rotation", z, z_q, cotangent)

    def cosines(a, b):
        return np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)

    np.testing.assert_allclose(cosines(to_z, z), cosines(cotangent, z_q), rtol=1e-10)


Z = np.array([[1.0, -2.0, 0.5]])
GUARDED = {
    "z is zero": (0 * Z, Z),
    "the codeword is zero": (Z, 0 * Z),
    "both are zero": (0 * Z, 0 * Z),
    "they point in opposite directions": (Z, -3 * Z),
}


@pytest.mark.parametrize("case", GUARDED)
def test_rotation_is_the_plain_estimator_where_no_turn_is_defined(case):
    z, z_q = GUARDED[case]
    cotangent = double(2, 1, 3)
    z_hat, to_z, to_z_q = estimate("rotation", z, z_q, cotangent)
    np.testing.assert_allclose(z_hat, z_q, atol=1e-12)
    np.testing.assert_array_equal(to_z, cotangent)
    np.testing.assert_array_equal(to_z_q, 0.0)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_rotation_only_scales_where_directions_agree(scale):
    cotangent = double(2, 1, 3)
    z_hat, to_z, _ = estimate("rotation", Z, scale * Z, cotangent)
    np.testing.assert_allclose(z_hat, scale * Z, rtol=1e-12)
    np.testing.assert_allclose(to_z, scale * cotangent, rtol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_diveq_splits_the_gradient_between_z_and_its_codeword(noise):
    """z gets (I - u v^T) g and its codeword u (v^T g), v the noisy direction u."""
    z, z_q, cotangent = double(0, 4, 3), double(1, 4, 3), double(2, 4, 3)
    key = jax.random.key(0)
    z_hat, to_z, to_z_q = estimate("diveq", z, z_q, cotangent, noise=noise, rng=key)
    distance = np.linalg.norm(z_q - z, axis=-1, keepdims=True)
    u = (z_q - z) / distance
    drawn = np.asarray(jax.random.normal(key, z.shape, np.float64))
    v = z_q - z + noise * drawn
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    along = u * np.sum(v * cotangent, axis=-1, keepdims=True)
    np.testing.assert_allclose(z_hat, z + distance * v, rtol=1e-10)
    np.testing.assert_allclose(to_z, cotangent - along, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(to_z_q, along, rtol=1e-9, atol=1e-12)
    assert np.allclose(z_hat, z_q) == (noise == 0)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_diveq_leaves_z_where_it_is_its_codeword(noise):
    cotangent = double(2, 1, 3)
    key = jax.random.key(0)
    z_hat, to_z, to_z_q = estimate("diveq", Z, Z, cotangent, noise=noise, rng=key)
    np.testing.assert_array_equal(z_hat, Z)
    np.testing.assert_array_equal(to_z, cotangent)
    np.testing.assert_array_equal(to_z_q, 0.0)


def test_the_noise_of_diveq_is_a_standard_deviation():
    """Along a distance of one, small noise turns v by its own size."""
    z, z_q = np.zeros((20000, 3)), np.tile([1.0, 0.0, 0.0], (20000, 1))
    z_hat = apply_straight_through(z, z_q, kind="diveq", noise=0.01, rng=jax.random.key(1))
    np.testing.assert_allclose(np.std(z_hat[:, 1:]), 0.01, rtol=0.02)


@pytest.mark.parametrize("kind", STRAIGHT_THROUGH)
def test_float32_stays_float32(kind):
    z, z_q = (jnp.asarray(normal(seed, 4, 3)) for seed in (0, 1))
    assert z.dtype == jnp.float32
    rng = jax.random.key(0)
    assert apply_straight_through(z, z_q, kind=kind, noise=0.1, rng=rng).dtype == jnp.float32


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="straight_through is 'none'; expected one of"):
        apply_straight_through(Z, Z, kind="none")
