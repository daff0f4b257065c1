"""Plain vector quantization: its values, and who moves where."""

import functools

import jax
import numpy as np
import pytest
from arrays import brute_force, normal

from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.straight_through import STRAIGHT_THROUGH
from mq_jax.quantizers.vq import quantize


@pytest.mark.parametrize("kind", STRAIGHT_THROUGH)
def test_the_decoder_gets_the_estimator_that_is_asked_for(kind):
    z, codebook, cotangent = normal(0, 4, 3), normal(1, 6, 3), normal(2, 4, 3)

    def z_hat(z, codebook):
        return quantize(z, codebook, straight_through=kind, lookup=nearest_codeword).z_hat

    value, pullback = jax.vjp(z_hat, z, codebook)
    indices = brute_force(z, codebook)
    np.testing.assert_allclose(value, codebook[indices], rtol=1e-6, atol=1e-6)
    to_z, to_codebook = pullback(cotangent)
    np.testing.assert_array_equal(to_z, cotangent)
    reached = kind == "encoder-and-codewords"
    assert (np.abs(to_codebook[indices]).sum(-1) > 0).all() == reached


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="straight_through is 'none'; expected one of"):
        quantize(normal(0, 2, 3), normal(1, 8, 3), straight_through="none", lookup=nearest_codeword)


def test_the_loss_moves_encodings_and_codewords_towards_each_other():
    """mean((z - z_q)^2): 2 (z - z_q) / n to z, and its negative, summed over a code's uses."""
    z, codebook = normal(0, 5, 4, 3), normal(1, 6, 3)

    def loss(z, codebook):
        q = quantize(
            z,
            codebook,
            straight_through="encoder",
            lookup=functools.partial(nearest_codeword, chunk=4),
        )
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
