"""What is freed is found again, without a page fault."""

import gc
import platform
import resource
import subprocess
import sys

import pytest

from mq_jax.devices import memory

_FAULTS_OF_A_SECOND_ARRAY = """
import ctypes
import resource
import sys

from mq_jax.devices.memory import keep_memory

{before}
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
assert "numpy" not in sys.modules
size = 2**26
for repeated in range(2):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = libc.malloc(size)
    ctypes.memset(array, 1, size)
    libc.free(array)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""
_PROGRAM = """
import runpy
import sys

import mq_jax.devices.memory as memory


def tell():
    early = [name for name in ("jax", "tensorstore") if name in sys.modules]
    sys.exit(f"kept before JAX, after {{early}}")


memory.keep_memory = tell
sys.argv = ["program", {argument!r}]
runpy.run_module({name!r}, run_name="__main__")
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")


def faults(before, **environment):
    """Page faults of writing 64 MiB that were freed a moment ago, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS_OF_A_SECOND_ARRAY.format(before=before)],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_freed_memory_is_found_again_without_page_faults():
    # Huge pages, where a system gives them unasked, are fewer and as dear to fill.
    pages = 2**26 // resource.getpagesize()
    fresh = faults("")
    assert pages // 512 <= fresh <= 1.1 * pages
    assert faults("keep_memory()") < 16


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}],
    ids=lambda environment: next(iter(environment)),
)
def test_what_the_environment_says_of_malloc_stays(environment):
    assert faults("keep_memory()", **environment) >= 32


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("mq_jax.main", "--workdir=nowhere"),
        ("mq_jax.bench", "--rounds=1"),
        ("mq_jax.tokenize", "encode"),
    ],
)
def test_each_program_keeps_memory_before_jax_starts_threads(name, argument):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(name=name, argument=argument)],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "kept before JAX, after []\n"


def test_python_seldom_looks_through_objects_that_stay():
    before = gc.get_threshold()
    try:
        memory.collect_seldom()
        gc.collect()
        looks = sum(generation["collections"] for generation in gc.get_stats())
        kept = [[] for _ in range(10_000)]
        assert sum(each["collections"] for each in gc.get_stats()) == looks and len(kept) == 10_000
        assert gc.isenabled() and gc.get_threshold()[1:] == before[1:]
    finally:
        gc.set_threshold(*before)
