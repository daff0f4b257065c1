"""Straight-through estimators against their closed forms."""

import jax
import numpy as np
import pytest
from arrays import normal

from mq_jax.quantizers.straight_through import STRAIGHT_THROUGH, apply_straight_through


@pytest.mark.parametrize("kind, to_codewords", [("encoder", 0.0), ("encoder-and-codewords", 1.0)])
def test_the_estimator_has_the_value_of_the_codewords_and_slope_one_in_z(kind, to_codewords):
    z, z_q, cotangent = normal(0, 4, 3), normal(1, 4, 3), normal(2, 4, 3)
    z_hat, pullback = jax.vjp(lambda *a: apply_straight_through(*a, kind=kind), z, z_q)
    np.testing.assert_allclose(z_hat, z_q, rtol=1e-6, atol=1e-6)
    to_z, to_z_q = pullback(cotangent)
    np.testing.assert_array_equal(to_z, cotangent)
    np.testing.assert_array_equal(to_z_q, to_codewords * cotangent)


def test_every_estimator_is_in_the_table_above():
    assert STRAIGHT_THROUGH == ("encoder", "encoder-and-codewords")
