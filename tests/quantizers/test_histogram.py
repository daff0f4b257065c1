"""Code statistics against their closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from mq_jax.quantizers.histogram import code_counts, perplexity, usage


@pytest.mark.parametrize("shape", [(), (1,), (50,), (4, 3, 3)])
def test_code_counts_are_a_bincount(shape):
    indices = np.random.default_rng(0).integers(0, 9, shape)
    counts = code_counts(jnp.asarray(indices), 9)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, np.bincount(np.ravel(indices), minlength=9))


@pytest.mark.parametrize(
    "counts, share, effective",
    [
        ([7, 7, 7, 7], 1.0, 4.0),
        ([7, 0, 7, 0], 0.5, 2.0),
        ([0, 0, 3, 0], 0.25, 1.0),
        ([0, 0, 0, 0], 0.0, 1.0),
        ([1, 3], 1.0, 0.25**-0.25 * 0.75**-0.75),
        ([100_000_000, 300_000_000], 1.0, 0.25**-0.25 * 0.75**-0.75),
    ],
)
def test_usage_is_the_share_of_codes_and_perplexity_their_effective_number(
    counts, share, effective
):
    counts = jnp.asarray(counts, jnp.int32)
    np.testing.assert_allclose(usage(counts), share)
    np.testing.assert_allclose(perplexity(counts), effective, rtol=1e-6)
