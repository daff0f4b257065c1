"""Eight virtual CPU devices for the whole suite, set before JAX starts its backend; signals."""

import os
import signal

import pytest

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"

# A suite that runs in the background inherits signals that are ignored, and so would its programs.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) == signal.SIG_IGN:
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def float64():
    """JAX computes in float64 until the module ends."""
    # Not above: the environment counts when JAX is imported.
    import jax

    with jax.enable_x64(True):
        yield
