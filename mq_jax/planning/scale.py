"""What more devices would do to a run: formulas over its plan, on paper."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from mq_jax.data.inputs import reads_outer
from mq_jax.devices import sharding
from mq_jax.devices.peaks import Peak
from mq_jax.planning.plan import Plan
from mq_jax.runs.stages import is_prior

COUNTS = (64, 512)
# Devices of a machine, over whose fast links most of an exchange goes.
MACHINE = 8
# Assumed: the share of the peak that a step reaches; seconds of one hop of a collective; bytes a
# second from a device to its host, and from a host to the disk that all share.
EFFICIENCY, HOP, TO_HOST, TO_DISK = 0.35, 5e-6, 20e9, 1e9
EVALUATED = 10_000
# What an evaluation runs of a model.
_FORWARD = ("encoder", "lookup", "decoder", "transformer", "heads")


class Work(NamedTuple):
    """What a step takes of each device.

    Attributes:
      devices: of the plan.
      images: of a step and level, on all devices.
      levels: that read batches of their own.
      flops: of convolutions and products, on one device.
      reduced: bytes of each device that all devices add up.
      collectives: in which they do.
      state: bytes of a checkpoint.
      held: of it, bytes of one device.
      forward: FLOPs to evaluate an image.
    """

    devices: int
    images: int
    levels: int
    flops: float
    reduced: float
    collectives: float
    state: int
    held: int
    forward: float


class Scaled(NamedTuple):
    """A run on so many devices.

    Attributes:
      devices: in all.
      images: of a step and level.
      compute: seconds of a step.
      exchange: seconds that the devices exchange, were nothing of it hidden by computing.
      read: images a second that a machine reads.
      evaluate: seconds of the networks for EVALUATED images.
    """

    devices: int
    images: int
    compute: float
    exchange: float
    read: float
    evaluate: float


def work_of(plan: Plan) -> Work | None:
    """What a plan says of its step.

    Args:
      plan: from make_plan.

    Returns:
      A Work; None where the plan was not compiled, which tells what is exchanged.
    """
    if any(step.compiled is None for step in plan.steps):
        return None
    found = [(s.share, t) for s in plan.steps for t in s.compiled.traffic.values()]
    state = [h for h in plan.holdings if h.name not in ("batches", "LPIPS, frozen")]
    whole = sharding.total(state)
    levels = 2 if not is_prior(plan.config) and reads_outer(plan.config) else 1
    batch = plan.config.train.batch_size
    forward = sum(plan.forward.get(part, 0) for part in _FORWARD) / batch
    return Work(
        devices=plan.mesh.size,
        images=batch,
        levels=levels,
        flops=plan.matrix_flops / plan.mesh.size,
        reduced=sum(share * traffic.bytes for share, traffic in found),
        collectives=sum(share * traffic.count for share, traffic in found),
        state=whole.size,
        held=whole.per_device,
        forward=forward,
    )


def scaled(work: Work, peak: Peak, dtype: str) -> Iterator[Scaled]:
    """The run on the plan's devices and on COUNTS, with as many images on each, and in all.

    Args:
      work: from work_of.
      peak: of the devices; with its links.
      dtype: of the net.

    Yields:
      Of each count that the plan does not exceed, first with the plan's images on each device,
      then with its batch where the devices divide that.
    """
    each = work.images // work.devices
    for devices in (work.devices, *(count for count in COUNTS if count > work.devices)):
        yield _scaled(work, peak, dtype, devices, each * devices)
        if devices != work.devices and work.images % devices == 0:
            yield _scaled(work, peak, dtype, devices, work.images)


def exchange_seconds(size: float, collectives: float, devices: int, peak: Peak) -> float:
    """Seconds to add up arrays of all devices, and to give each the sum.

    Within a machine each device comes to hold the sum of a share; of its share it then adds up
    those of all machines, and last the machine's devices gather the whole: rings,
    2 (n - 1) / n of the bytes; and a tree's 2 log2 n hops for each collective.

    Args:
      size: bytes of one device.
      collectives: in which they go.
      devices: in all.
      peak: with the links.

    Returns:
      Seconds.
    """
    inside = min(devices, MACHINE)
    machines = devices // inside
    local = 2 * (inside - 1) / inside * size / (peak.link * 1e9)
    distant = 2 * (machines - 1) / machines * (size / inside) / (peak.network * 1e9)
    return local + distant + collectives * HOP * 2 * math.log2(devices)


def _scaled(work, peak, dtype, devices, images):
    rate = peak.of(dtype) * 1e12 * EFFICIENCY
    share = images * work.devices / (work.images * devices)
    compute = work.flops * share / rate
    exchange = exchange_seconds(work.reduced, work.collectives, devices, peak)
    machines = max(devices // MACHINE, 1)
    read = work.levels * images / machines / (compute + exchange)
    evaluate = math.ceil(EVALUATED / devices) * work.forward / rate
    return Scaled(devices, images, compute, exchange, read, evaluate)
