"""The pull between encodings and codewords, and who feels how much of it."""

import jax
import numpy as np
import pytest
from arrays import normal

from mq_jax.quantizers.attraction import attraction

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "commitment, codebook", [(1.0, 1.0), (0.25, 1.0), (1.0, 0.25), (0.0, 1.0), (0.25, 0.0)]
)
def test_each_side_is_pulled_by_its_own_weight(commitment, codebook):
    """z gets a 2 (z - q) / ND and q gets b 2 (q - z) / ND; a mean over positions and channels."""
    z, z_q = normal(0, 5, 4, 3).astype(np.float64), normal(1, 5, 4, 3).astype(np.float64)
    value, gradients = jax.value_and_grad(attraction, argnums=(0, 1))(
        z, z_q, commitment=commitment, codebook=codebook
    )
    expected = max(commitment, codebook) * np.mean((z - z_q) ** 2)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradients[0], commitment * 2 * (z - z_q) / z.size, rtol=1e-12)
    np.testing.assert_allclose(gradients[1], codebook * 2 * (z_q - z) / z.size, rtol=1e-12)


@pytest.mark.parametrize("weights, cross", [((1.0, 1.0), 1.0), ((0.25, 1.0), 0.25)])
def test_only_the_common_pull_reaches_across_levels(weights, cross):
    """d2 / dz dq, which carries the hyper-gradient, is -2 min(a, b) / ND."""
    z, z_q = np.ones((1, 1)), np.zeros((1, 1))

    def pull(z, z_q):
        return attraction(z, z_q, commitment=weights[0], codebook=weights[1])

    mixed = jax.jacobian(jax.grad(pull), argnums=1)(z, z_q)
    np.testing.assert_allclose(mixed.squeeze(), -2 * cross, rtol=1e-12)
