"""How a process gets memory for large arrays, and what seldom looks through small ones."""

import contextlib
import ctypes
import gc
import os
import pathlib
import sys

# Of malloc.h and linux/mman.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_HUGE_PAGES = 14
_HUGE_PAGE = 2**21
# Address space alone, until it is written to; a quarter of the memory where that is less.
_HEAP = 2**32

# The version of glibc from which on the environment may ask for huge pages.
_TUNABLE_SINCE = 2, 35

# An option of Python's, without a meaning for it, that marks a program as begun once more.
_BEGUN_AGAIN = "mq_jax_begun_again"

# Made and not yet freed, before Python looks for cycles; 700 by default.
_OBJECTS = 20_000


def keep_memory() -> None:
    """Lets large arrays lie in huge pages; where there are none, lets glibc keep what is freed.

    XLA's CPU backend allocates the temporary arrays of a step anew at each. glibc maps arrays of
    that size one by one and unmaps them when they are freed, so a step of MQVAE takes 40,000
    page faults, a quarter of its time; in huge pages it takes 600. glibc asks for these only where
    the environment says so at the start of a program, so this one starts once more, as the same
    process.

    To be called first of all: what was begun is begun again. What the environment says of malloc
    stays; without glibc nothing changes.
    """
    said = any(name.startswith(("MALLOC_", "LD_PRELOAD")) for name in os.environ)
    if said or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version.restype = ctypes.c_char_p
        version = tuple(map(int, libc.gnu_get_libc_version().split(b".")[:2]))
    except (AttributeError, OSError, TypeError, ValueError):
        return
    pages = _huge_pages()
    if pages == "always":
        return
    if pages == "madvise" and version >= _TUNABLE_SINCE and _is_begun_by_name():
        _begin_again()
    _keep_freed(libc)


def collect_seldom() -> None:
    """Lets Python look for unreachable cycles a thirtieth as often.

    Imports and traces make millions of objects that stay, which each look goes through again.
    """
    _, second, third = gc.get_threshold()
    gc.set_threshold(_OBJECTS, second, third)


def _huge_pages() -> str:
    """Whether the system gives huge pages: always, madvise (where asked) or never; "": unknown."""
    try:
        text = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return ""
    return text.partition("[")[2].partition("]")[0]


def _is_begun_by_name() -> bool:
    """Whether the process is `python -m mq_jax...`, for the first time, and no debugger's."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    arguments = sys.orig_argv
    if spec is None or "-m" not in arguments or sys.gettrace() is not None:
        return False
    if _BEGUN_AGAIN in sys._xoptions:
        return False
    name = arguments[arguments.index("-m") + 1]
    return name == spec.name.removesuffix(".__main__")


def _begin_again() -> None:
    """Runs the same command in this process, with huge pages; returns where that is not possible.

    The standard streams, the process id and the folder stay.
    """
    said = os.environ.get("GLIBC_TUNABLES")
    tunables = ":".join(filter(None, (said, "glibc.malloc.hugetlb=1")))
    # What the environment says may be lost on the way; the mark is not, so that this ends.
    command = [sys.executable, "-X", _BEGUN_AGAIN, *sys.orig_argv[1:]]
    with contextlib.suppress(OSError, TypeError, ValueError):
        os.execve(sys.executable, command, {**os.environ, "GLIBC_TUNABLES": tunables})


def _keep_freed(libc: ctypes.CDLL) -> None:
    """No maps of single arrays, no trimming, one arena, since the others hold 64 MiB each.

    So the next step finds the same pages. Threads that compile wait for that arena's lock.
    """
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
        libc.mallopt(parameter, value)
    _ask_for_huge_pages(libc)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Marks the heap from its present end on, which malloc first has to be given."""
    with contextlib.suppress(ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        size = min(_HEAP, memory // 4) // _HUGE_PAGE * _HUGE_PAGE
        libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        start = libc.malloc(size)
        if start is None:
            return
        first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        # A kernel without huge pages refuses, which is no harm.
        libc.madvise(first, size - _HUGE_PAGE, _HUGE_PAGES)
        libc.free(start)
