"""Which codes may be drawn, and how guidance grows."""

import jax.numpy as jnp
import numpy as np
import pytest

from mq_jax.generation.filters import filtered
from mq_jax.generation.guidance import guidance_scales, guided

LOGITS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * 2


def kept_codes(logits, temperature, top_k, top_p):
    """One row, by the definition."""
    logits = logits / temperature
    order = sorted(range(len(logits)), key=lambda code: (-logits[code], code))
    order = order[: top_k or None]
    mass = np.exp(logits[order] - logits.max())
    reached = np.cumsum(mass / mass.sum())
    return set(order[: 1 + int(np.sum(reached[:-1] < top_p))])


@pytest.mark.parametrize("temperature, top_k, top_p", [(1, 3, 1), (0.5, 0, 0.7), (2, 4, 0.8)])
def test_codes_are_kept_by_rank_and_then_by_mass(temperature, top_k, top_p):
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    out = np.asarray(filtered(jnp.asarray(LOGITS), **settings))
    for logits, row in zip(LOGITS, out, strict=True):
        assert set(np.flatnonzero(np.isfinite(row))) == kept_codes(logits, **settings)
    finite = np.isfinite(out)
    np.testing.assert_allclose(out[finite], (LOGITS / temperature)[finite], rtol=1e-6)
    assert len(np.unique(finite.sum(-1))) > 1 or top_p == 1


def test_one_code_is_kept_among_equals_and_of_any_mass():
    equal = jnp.zeros((1, 5))
    for settings in ({"top_k": 1}, {"top_p": 1e-9}):
        assert np.isfinite(filtered(equal, **settings)).tolist() == [[True] + [False] * 4]
    assert np.isfinite(filtered(equal, top_k=9)).all()


def test_guidance_grows_as_its_schedule_says():
    way = np.arange(4) / 4
    cases = {"constant": [3, 3, 3, 3], "linear": 1 + 2 * way}
    cases["power-cosine"] = 1 + 2 * (1 - np.cos(np.pi * way**2)) / 2
    for schedule, expected in cases.items():
        np.testing.assert_allclose(guidance_scales(3, 4, schedule, 2), expected, rtol=1e-6)
        np.testing.assert_array_equal(guidance_scales(1, 4, schedule, 2), 1)
    with pytest.raises(ValueError, match="'cubic'; expected one of"):
        guidance_scales(3, 4, "cubic")


def test_guidance_leads_from_what_is_likely_without_a_class():
    logits = jnp.array([[1.0, 2.0], [3.0, 1.0]])
    np.testing.assert_allclose(guided(logits, 1.0), logits[:1])
    np.testing.assert_allclose(guided(logits, 0.0), logits[1:])
    np.testing.assert_allclose(guided(logits, 2.0), [[-1.0, 3.0]])
