"""Questions to whole trees."""

import jax.numpy as jnp
import pytest

from mq_jax.runs.trees import all_finite


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lost", ["inf", "-inf", "nan"])
def test_one_number_that_is_none_is_found_among_the_largest(lost, dtype):
    largest = float(jnp.finfo(dtype).max)
    tree = {
        "a": jnp.full((2, 3), largest, dtype),
        "b": [jnp.full(4, -largest, dtype), jnp.ones(())],
    }
    assert all_finite(tree)
    tree["b"][0] = tree["b"][0].at[2].set(float(lost))
    assert not all_finite(tree)
