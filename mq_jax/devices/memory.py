"""Memory that a process keeps between steps, and what seldom looks for more of it."""

import contextlib
import ctypes
import gc
import os

# Of malloc.h and linux/mman.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_HUGE_PAGES = 14
_HUGE_PAGE = 2**21
# Address space alone, until it is written to; a quarter of the memory where that is less.
_HEAP = 2**32

# Made and not yet freed, before Python looks for cycles; 700 by default.
_OBJECTS = 20_000


def keep_memory() -> None:
    """Lets glibc keep what is freed, and asks the system for huge pages.

    XLA's CPU backend allocates the temporary arrays of a step anew at each. glibc maps arrays of
    that size one by one and unmaps them when they are freed, so a step of MQVAE takes 40,000
    page faults, a quarter of its time. Without maps of their own, without trimming and in one
    arena, since the others hold 64 MiB each, the next step finds the same pages.

    To be called before a library starts threads, each of which may open an arena. What the
    environment says of malloc stays; without glibc nothing changes.
    """
    said = any(name.startswith(("MALLOC_", "LD_PRELOAD")) for name in os.environ)
    if said or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
        libc.mallopt(parameter, value)
    _ask_for_huge_pages(libc)


def collect_seldom() -> None:
    """Lets Python look for unreachable cycles a thirtieth as often.

    Imports and traces make millions of objects that stay, which each look goes through again.
    """
    _, second, third = gc.get_threshold()
    gc.set_threshold(_OBJECTS, second, third)


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
