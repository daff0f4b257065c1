"""A step on more devices: formulas over a plan, on paper."""

from collections.abc import Iterator
from typing import NamedTuple

from mq_jax.data.inputs import reads_outer
from mq_jax.devices.peaks import Peak
from mq_jax.planning import rates
from mq_jax.planning.hlo import Traffic
from mq_jax.planning.plan import Plan
from mq_jax.planning.rates import Load
from mq_jax.runs.stages import is_prior

COUNTS = (64, 512)
# Parts whose factors are of full float32; and what a device computes whatever its images are.
_FULL, _FIXED = ("lookup", "quantizer", "hyper-net"), ("hyper-net",)


class Work(NamedTuple):
    """What a step takes of each device.

    Attributes:
      devices: of the plan.
      fsdp: of them, those that share a state out.
      images: of a step and level, on all devices.
      levels: that read batches of their own.
      batch: Load of a device's images.
      fixed: Load whatever their number is.
      traffic: what a device exchanges, by kind of collective.
    """

    devices: int
    fsdp: int
    images: int
    levels: int
    batch: Load
    fixed: Load
    traffic: dict[str, Traffic]


class Scaled(NamedTuple):
    """A step on so many devices.

    Attributes:
      devices: in all.
      images: of a step and level.
      compute: seconds.
      exchange: seconds that the devices exchange and do not compute.
      read: images a second that a machine reads.
    """

    devices: int
    images: int
    compute: float
    exchange: float
    read: float

    @property
    def seconds(self) -> float:
        """Of the step."""
        return self.compute + self.exchange


def work_of(plan: Plan) -> Work | None:
    """What a plan says of its step.

    Args:
      plan: from make_plan.

    Returns:
      A Work; None where the plan was not compiled, which tells what is exchanged.
    """
    if any(step.compiled is None for step in plan.steps):
        return None
    return Work(
        devices=plan.mesh.size,
        fsdp=plan.mesh.shape["fsdp"],
        images=plan.config.train.batch_size,
        levels=2 if not is_prior(plan.config) and reads_outer(plan.config) else 1,
        **loads({name: part.matrix / plan.mesh.size for name, part in plan.parts.items()}),
        traffic=_traffic(plan),
    )


def loads(flops: dict[str, float]) -> dict[str, Load]:
    """What FLOPs of parts are for devices.

    Args:
      flops: of convolutions and products, by part.

    Returns:
      {"batch": a Load that follows the images, "fixed": one that does not}.
    """
    found = {"batch": Load(0, 0), "fixed": Load(0, 0)}
    for name, count in flops.items():
        whose = "fixed" if name in _FIXED else "batch"
        added = Load(0, count) if name in _FULL else Load(count, 0)
        found[whose] = found[whose].plus(added)
    return found


def _traffic(plan):
    """The collectives of the average step."""
    found: dict[str, Traffic] = {}
    for step in plan.steps:
        for kind, each in step.compiled.traffic.items():
            before = found.get(kind, Traffic(0, 0))
            count = before.count + step.share * each.count
            found[kind] = Traffic(count, before.bytes + step.share * each.bytes)
    return found


def scaled(work: Work, peak: Peak, dtype: str) -> Iterator[Scaled]:
    """The step on the plan's devices and on COUNTS, with as many images on each, and in all.

    Args:
      work: from work_of.
      peak: of the devices; with its links.
      dtype: of the net.

    Yields:
      Of each count that the plan does not exceed, first with the plan's images on each device,
      then with its batch where the devices divide that.
    """
    for devices in counts(work.devices):
        yield step_on(devices, work.images * devices // work.devices, work, peak, dtype)
        if devices != work.devices and work.images % devices == 0:
            yield step_on(devices, work.images, work, peak, dtype)


def counts(devices: int) -> tuple[int, ...]:
    """Those of a plan, and those of COUNTS that are more."""
    return devices, *(count for count in COUNTS if count > devices)


def step_on(
    devices: int, images: int, work: Work, peak: Peak, dtype: str, beside: float = 0
) -> Scaled:
    """A step.

    Args:
      devices: in all.
      images: of a step and level, on all of them.
      work: from work_of.
      peak: of the devices; with its links.
      dtype: of the net.
      beside: the share of the time of computing beside which the devices exchange.

    Returns:
      A Scaled.
    """
    share = images * work.devices / (work.images * devices)
    load = work.batch.times(share).plus(work.fixed)
    compute = rates.compute_seconds(load, peak, dtype)
    exchange = rates.exchange_seconds(work.traffic, devices, work.fsdp, peak)
    exchange = max(exchange - beside * compute, 0) + rates.agreement_seconds(devices)
    read = work.levels * images / rates.machines(devices) / (compute + exchange)
    return Scaled(devices, images, compute, exchange, read)
