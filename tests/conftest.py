"""Eight virtual CPU devices, set before JAX starts its backend; quick compilation; signals."""

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

# Programs of the default suite run a few times only: compiled so, they take a fifth of the time.
_QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def pytest_configure(config):
    """Slow tests, and all of them where XLA_FLAGS names a level, compile as a user's programs do.

    Before any test is collected, hence before JAX is imported; processes of tests inherit it.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if config.option.markexpr == "not slow" and "xla_backend_optimization_level" not in given:
        os.environ["XLA_FLAGS"] = " ".join([given, *_QUICK]).strip()


@pytest.fixture(scope="module")
def float64():
    """JAX computes in float64 until the module ends."""
    # Not above: the environment counts when JAX is imported.
    import jax

    with jax.enable_x64(True):
        yield
