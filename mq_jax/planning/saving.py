"""A checkpoint of a run on more devices: its bytes, and how long they take."""

from typing import NamedTuple

from mq_jax.devices import sharding
from mq_jax.planning import rates
from mq_jax.planning.plan import Plan

# Assumed: bytes a second from a device to its host, and of a disk from which all machines read.
TO_HOST, SHARED = 20e9, 1e9
# Measured on two CPU cores, in the page cache (docs/results.md, "Checkpoints"): bytes a second, and
# seconds that each array takes beside its bytes.
WRITTEN, READ = 0.33e9, 0.5e9
ARRAY_COPIED, ARRAY_WRITTEN, ARRAY_READ = 1e-4, 1.5e-3, 1.5e-3


class Checkpoint(NamedTuple):
    """What is saved: its arrays, all bytes, and those that a device holds."""

    arrays: int
    bytes: int
    held: int


class Saving(NamedTuple):
    """Seconds, and bytes.

    Attributes:
      copied: seconds from a device to its host.
      written: seconds to write everything from one host.
      read: bytes that all machines read to go on.
      restored: seconds of that, where each has a disk of its own and where all have one.
    """

    copied: float
    written: float
    read: int
    restored: tuple[float, float]


def checkpoint_of(plan: Plan) -> Checkpoint:
    """What a plan says of its checkpoints.

    Args:
      plan: from make_plan.

    Returns:
      A Checkpoint.
    """
    state = [h for h in plan.holdings if h.name not in ("batches", "LPIPS, frozen")]
    whole = sharding.total(state)
    return Checkpoint(whole.arrays, whole.size, whole.per_device)


def saving_on(devices: int, checkpoint: Checkpoint) -> Saving:
    """How long it takes on so many devices.

    Args:
      devices: in all.
      checkpoint: from checkpoint_of.

    Returns:
      A Saving. The devices of a machine hold all of it together, so that each machine reads all.
    """
    arrays, size = checkpoint.arrays, checkpoint.bytes
    read = size * rates.machines(devices)
    own = size / READ + arrays * ARRAY_READ
    return Saving(
        copied=checkpoint.held / TO_HOST + arrays * ARRAY_COPIED,
        written=size / WRITTEN + arrays * ARRAY_WRITTEN,
        read=read,
        restored=(own, max(own, read / SHARED)),
    )
