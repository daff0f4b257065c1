"""Attention and rotary positions: NumPy's values, where a query stands, what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from numpy_transformer import mixed, positions, turned

from mq_jax.generation.attention import attend
from mq_jax.generation.rotary import grid_angles, rotate
from mq_jax.generation.space import TokenSpace

RNG = np.random.default_rng(0)
QUERY, KEY, VALUE = RNG.normal(size=(3, 2, 5, 3, 8)).astype(np.float32)
EARLIER = np.tril(np.ones((5, 5), bool))


@pytest.mark.parametrize("causal, seen", [(False, np.ones((5, 5), bool)), (True, EARLIER)])
def test_attention_is_its_formula(causal, seen):
    out = attend(QUERY, KEY, VALUE, causal=causal)
    np.testing.assert_allclose(out, mixed(QUERY, KEY, VALUE, seen), rtol=1e-5, atol=1e-6)


def test_queries_of_a_cache_see_the_keys_up_to_their_own_place():
    cached = tiny.jit(lambda start: attend(QUERY[:, 2:4], KEY, VALUE, causal=True, start=start))
    expected = mixed(QUERY, KEY, VALUE, EARLIER)[:, 2:4]
    np.testing.assert_allclose(cached(2), expected, rtol=1e-5, atol=1e-6)
    # Aligned to the first key, the query at place 2 would see that one alone.
    assert np.abs(cached(0)[:, 0] - VALUE[:, 0]).max() < 1e-6
    assert np.abs(cached(2)[:, 0] - VALUE[:, 0]).max() > 0.1


@pytest.mark.parametrize(
    "query, key, settings, message",
    [
        (QUERY[:, :1], KEY, {"causal": True}, "causal over 1 queries and 5 keys"),
        (QUERY, KEY, {"causal": False, "start": 0}, "has a start and is not causal"),
        (QUERY, KEY[:, :, :1], {"causal": True}, r"expected \[B, T, H, d\]"),
        (QUERY.astype(jnp.bfloat16), KEY, {"causal": True}, "of one dtype"),
    ],
)
def test_attention_refuses_what_has_no_meaning(query, key, settings, message):
    with pytest.raises(ValueError, match=message):
        attend(query, key, VALUE[:, :, : key.shape[2]], **settings)


def test_pairs_of_channels_turn_by_row_and_by_column():
    places = positions(TokenSpace(2, 2, 1, 2))
    out = rotate(jnp.asarray(QUERY), grid_angles(2, 2, 8))
    np.testing.assert_allclose(out, turned(QUERY, places), rtol=1e-5, atol=1e-6)
    # The class's position does not turn.
    np.testing.assert_array_equal(out[:, 0], QUERY[:, 0])


def test_products_of_turned_vectors_know_differences_of_places_alone():
    x = np.broadcast_to(QUERY[:1, :1], (1, 13, 3, 8))
    out = np.asarray(rotate(jnp.asarray(x), grid_angles(3, 4, 8)))[0, 1:, 0].reshape(3, 4, 8)
    first, shifted = out[0, 0] @ out[1, 2], out[1, 1] @ out[2, 3]
    np.testing.assert_allclose(first, shifted, rtol=1e-5)
    assert abs(first - out[0, 0] @ out[2, 1]) > 0.1
