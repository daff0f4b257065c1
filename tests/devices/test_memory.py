"""Large arrays lie in huge pages, or are found again without a page fault."""

import gc
import os
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

from mq_jax.devices import memory
from mq_jax.devices.memory import keep_memory

memory._huge_pages = lambda: "never"
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

_BEGUN = """
import os
import sys

from mq_jax.devices import memory

memory._huge_pages = lambda: {pages!r}
memory.keep_memory()
print(os.getpid(), *sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
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


def begun(folder, pages, *command, **environment):
    """What a module of its own prints that keeps memory, less its process id, which stays."""
    (folder / "begun.py").write_text(_BEGUN.format(pages=pages))
    environment |= {"PATH": "", "PYTHONPATH": ":".join([str(folder), *sys.path])}
    command = [sys.executable, *(command or ("-m", "begun")), "first", "--second"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    number, *told = out.split()
    assert process.returncode == 0 and int(number) == process.pid
    return told


def version_of_glibc():
    """Of the one that runs; () without."""
    told = os.confstr("CS_GNU_LIBC_VERSION") if platform.libc_ver()[0] == "glibc" else ""
    return tuple(map(int, told.removeprefix("glibc ").split("."))) if told else ()


_asks_by_itself = pytest.mark.skipif(
    version_of_glibc() < (2, 35), reason="glibc has no tunable for huge pages"
)


@_asks_by_itself
def test_a_program_begins_once_more_as_the_same_process_to_get_huge_pages(tmp_path):
    asked = "glibc.malloc.hugetlb=1"
    assert begun(tmp_path, "madvise") == ["first", "--second", asked]
    other = "glibc.rtld.optional_static_tls=512"
    told = begun(tmp_path, "madvise", GLIBC_TUNABLES=other)
    assert told == ["first", "--second", f"{other}:{asked}"]


@pytest.mark.parametrize("pages", ["always", "never", ""])
def test_it_does_not_where_there_are_none_to_ask_for(tmp_path, pages):
    assert begun(tmp_path, pages) == ["first", "--second", "None"]


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "runpy", "begun"),
        ("-c", "import begun"),
        # Where what the environment says was lost on the way.
        ("-X", memory._BEGUN_AGAIN, "-m", "begun"),
    ],
)
def test_it_does_not_within_another_program_or_twice(tmp_path, command):
    assert begun(tmp_path, "madvise", *command) == ["first", "--second", "None"]


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
