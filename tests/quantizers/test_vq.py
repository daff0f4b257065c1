"""Plain vector quantization: its values, and who moves where."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import brute_force, normal
from kinds import Given

from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.vq import VQ, unit_vectors


def quantize(z, codebook, straight_through="encoder", **fields):
    quantizer = VQ(Given(), **fields)
    return quantizer(codebook, (), z, straight_through=straight_through, train=True)


@pytest.mark.parametrize("kind", ["encoder", "encoder-and-codewords"])
def test_the_decoder_gets_the_estimator_that_is_asked_for(kind):
    z, codebook, cotangent = normal(0, 4, 3), normal(1, 6, 3), normal(2, 4, 3)

    def z_hat(z, codebook):
        return quantize(z, codebook, kind).z_hat

    value, pullback = jax.vjp(z_hat, z, codebook)
    indices = brute_force(z, codebook)
    np.testing.assert_allclose(value, codebook[indices], rtol=1e-6, atol=1e-6)
    to_z, to_codebook = pullback(cotangent)
    np.testing.assert_array_equal(to_z, cotangent)
    reached = kind == "encoder-and-codewords"
    assert (np.abs(to_codebook[indices]).sum(-1) > 0).all() == reached


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="straight_through is 'none'; expected one of"):
        quantize(normal(0, 2, 3), normal(1, 8, 3), "none")


def test_the_loss_moves_encodings_and_codewords_towards_each_other():
    """mean((z - z_q)^2): 2 (z - z_q) / n to z, and its negative, summed over a code's uses."""
    z, codebook = normal(0, 5, 4, 3), normal(1, 6, 3)

    def loss(z, codebook):
        q = quantize(z, codebook, lookup=functools.partial(nearest_codeword, chunk=4))
        return q.loss, q

    gradients, q = jax.grad(loss, argnums=(0, 1), has_aux=True)(z, codebook)
    indices = brute_force(z, codebook)
    to_z = 2 * (z - codebook[indices]) / z.size
    to_codebook = np.zeros_like(codebook)
    np.add.at(to_codebook, indices, -to_z)
    np.testing.assert_array_equal(q.indices, indices)
    np.testing.assert_array_equal(q.z_q, codebook[indices])
    np.testing.assert_allclose(q.loss, np.mean((z - codebook[indices]) ** 2), rtol=1e-6)
    np.testing.assert_allclose(gradients[0], to_z, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], to_codebook, rtol=1e-5, atol=1e-7)


def test_unequal_weights_pull_each_side_by_its_own():
    z, codebook = normal(0, 5, 4, 3), normal(1, 6, 3)

    def gradients(**weights):
        loss = lambda z, codebook: quantize(z, codebook, **weights).loss  # noqa: E731
        return jax.grad(loss, argnums=(0, 1))(z, codebook)

    to_z, to_codebook = gradients()
    for commitment, weight in ((0.25, 1.0), (1.0, 0.25), (2.0, 0.5)):
        found = gradients(commitment=commitment, codebook_weight=weight)
        np.testing.assert_allclose(found[0], commitment * to_z, rtol=1e-5)
        np.testing.assert_allclose(found[1], weight * to_codebook, rtol=1e-5)


def test_on_the_unit_sphere_lengths_count_for_nothing():
    """The decoder gets unit vectors, and the gradient passes through z / ||z||."""
    z, codebook, cotangent = normal(0, 5, 3), normal(1, 6, 3), normal(2, 5, 3)
    scales = np.linspace(0.1, 3, 6)[:, None].astype(np.float32)
    q = quantize(z, codebook, unit=True)
    longer = quantize(3 * z, scales * codebook, unit=True)
    np.testing.assert_array_equal(q.indices, longer.indices)
    np.testing.assert_allclose(q.z_q, longer.z_q, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(q.z_q, axis=-1), 1, rtol=1e-6)
    # The nearest on the sphere has the largest cosine.
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    np.testing.assert_array_equal(q.indices, (unit(z) @ unit(codebook).T).argmax(-1))
    _, pullback = jax.vjp(lambda z: quantize(z, codebook, unit=True).z_hat, z)
    norms = np.linalg.norm(z, axis=-1, keepdims=True)
    across = cotangent - unit(z) * (unit(z) * cotangent).sum(-1, keepdims=True)
    np.testing.assert_allclose(pullback(cotangent)[0], across / norms, rtol=1e-4, atol=1e-6)


def test_a_vector_of_no_length_stays_and_passes_no_gradient():
    value, pullback = jax.vjp(unit_vectors, jnp.zeros((2, 3)))
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(pullback(jnp.ones((2, 3)))[0], 0)
