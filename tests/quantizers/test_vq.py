"""Plain vector quantization: its values, and who moves where."""

import functools

import jax
import numpy as np
from arrays import brute_force, normal

from mq_jax.quantizers.nearest import nearest_codeword
from mq_jax.quantizers.vq import quantize


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
