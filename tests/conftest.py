"""Eight virtual CPU devices and quick compilation, set before JAX starts its backend; signals."""

import os
import signal

import pytest

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"

# Programs of tests run a few times only: compiled so, they take a fifth of the time. Programs in
# processes of their own inherit it; what is given in XLA_FLAGS comes last and wins.
_QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join([*_QUICK, os.environ.get("XLA_FLAGS", "")]).strip()

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
