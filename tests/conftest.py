"""Eight virtual CPU devices for the whole suite, set before JAX starts its backend."""

import os

import pytest

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"


@pytest.fixture(scope="module")
def float64():
    """JAX computes in float64 until the module ends."""
    # Not above: the environment counts when JAX is imported.
    import jax

    with jax.enable_x64(True):
        yield
