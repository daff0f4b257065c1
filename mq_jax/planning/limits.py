"""How many devices a run's batch is worth, and what would change that: formulas, on paper."""

from collections.abc import Iterator
from typing import NamedTuple

from mq_jax.devices.peaks import Peak
from mq_jax.planning import rates
from mq_jax.planning.hlo import Traffic
from mq_jax.planning.rates import Load
from mq_jax.planning.scale import Scaled, Work, step_on

# Devices are worth it while each does this share of what each of the plan's does.
WORTH = 0.8
# Assumed: the share of computing that the backward passes are.
BACKWARD = 2 / 3
# Times the images of a step, in the last row.
LARGER = 8


class Change(NamedTuple):
    """What would change how far a run scales.

    Attributes:
      name: in words.
      today: what does it at present: fields, flags of XLA, or that there is none.
      bytes: of a sum, over those of today.
      joined: whether the collectives of a kind are one.
      shared: devices that share out what each computes whatever its images are.
      beside: as step_on's.
      images: of a step, over those of today.
    """

    name: str
    today: str
    bytes: float = 1
    joined: bool = False
    shared: int = 1
    beside: float = 0
    images: int = 1


AS_IT_IS = Change("as it is", "")


def changes(work: Work) -> Iterator[Change]:
    """What a table of limits has a row for.

    Args:
      work: from scale.work_of.

    Yields:
      AS_IT_IS, each change alone, then those of the same batch together.
    """
    yield AS_IT_IS
    alone = [
        Change("sums in bfloat16", "no field", bytes=0.5),
        Change("one collective of each kind", "XLA's flag", joined=True),
        Change("sums beside backward passes", "XLA's flag", beside=BACKWARD),
    ]
    shared = 1
    if work.fixed != Load(0, 0) and work.fsdp == 1:
        shared = rates.MACHINE
        alone.append(Change("a hyper-net shared out", f"mesh.fsdp={shared}", shared=shared))
    yield from alone
    yield Change(f"these {len(alone)}", "", 0.5, True, shared, BACKWARD)
    larger = f"train.batch_size={work.images * LARGER}"
    yield Change(f"{LARGER} times the images a step", larger, images=LARGER)


def limit(work: Work, peak: Peak, dtype: str, change: Change = AS_IT_IS) -> Scaled:
    """The most devices that are worth it: those of the plan, doubled as often as they are.

    Args:
      work: from scale.work_of.
      peak: of the devices; with its links.
      dtype: of the net.
      change: what is otherwise than in the plan.

    Returns:
      The step on them; each does at least WORTH of what the plan's do as they are.
    """
    images = work.images * change.images
    expected = WORTH * _pace(step_on(work.devices, work.images, work, peak, dtype))
    other = _changed(work, change)
    found, devices = None, work.devices
    while images % devices == 0:
        step = step_on(devices, images, other, peak, dtype, change.beside)
        if found is not None and _pace(step) < expected:
            break
        found, devices = step, 2 * devices
    return found


def _pace(step):
    """Images a second of one device."""
    return step.images / step.devices / step.seconds


def _changed(work, change):
    """What a step takes once something is changed."""
    traffic = {
        kind: Traffic(
            min(found.count, 1) if change.joined else found.count,
            found.bytes * (change.bytes if kind == "all-reduce" else 1),
        )
        for kind, found in work.traffic.items()
    }
    return work._replace(traffic=traffic, fixed=work.fixed.times(1 / change.shared))
