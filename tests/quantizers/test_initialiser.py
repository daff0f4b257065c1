"""The initialiser against PyTorch's formula."""

import jax
import numpy as np

from mq_jax.quantizers.initialiser import uniform_fan_in


def test_uniform_fan_in_is_pytorchs_default():
    sample = uniform_fan_in(16)(jax.random.key(0), (10_000,))
    np.testing.assert_allclose([sample.min(), sample.max()], [-0.25, 0.25], rtol=1e-2)
    np.testing.assert_allclose(sample.mean(), 0.0, atol=0.01)
