"""The CPU cores that a process may use."""

import os


def usable_cores() -> int:
    """How many CPU cores this process may use.

    Returns:
      At least 1; those that its affinity allows, where the system knows of one.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
