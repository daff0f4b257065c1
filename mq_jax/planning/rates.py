"""What machines do in a second: formulas over data sheets, with what was measured or is assumed."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from mq_jax.devices.peaks import Peak
from mq_jax.planning.hlo import Traffic

# The kinds of device that seconds are told for.
DEVICES = ("A100", "H100")
# Devices of a machine, over whose fast links most of an exchange goes; one process drives them.
MACHINE = 8
# Assumed: the share of the peak that products reach, and seconds of one hop of a collective.
EFFICIENCY, HOP = 0.35, 5e-6


class Records(NamedTuple):
    """What is read: in words, and how many a second by a thread on a core of its own."""

    name: str
    least: float
    most: float


# What was measured: the least and the most of JPEGs that are scaled to 128 pixels, and a token
# set's 61 us a row (docs/results.md, "Input", "Using a trained model").
JPEGS, TOKENS = Records("500 x 375 JPEGs", 249, 564), Records("rows of tokens", 16_000, 16_000)


class Load(NamedTuple):
    """Floating-point operations of convolutions and products, by what their factors are.

    Attributes:
      net: of the net's dtype.
      full: of full float32, which lookups, hyper-nets and measures ask for.
    """

    net: float
    full: float

    def times(self, factor: float) -> "Load":
        """So many of it."""
        return Load(self.net * factor, self.full * factor)

    def plus(self, other: "Load") -> "Load":
        """The sum."""
        return Load(self.net + other.net, self.full + other.full)


def machines(devices: int) -> int:
    """How many machines so many devices are in."""
    return math.ceil(devices / MACHINE)


def compute_seconds(load: Load, peak: Peak, dtype: str) -> float:
    """Seconds that one device computes.

    Args:
      load: of the device.
      peak: its own; where it does not tell `full`, that of float32 is taken.
      dtype: of the net.

    Returns:
      Seconds, at EFFICIENCY.
    """
    seconds = load.net / peak.of(dtype) + load.full / (peak.full or peak.of("float32"))
    return seconds / (1e12 * EFFICIENCY)


def exchange_seconds(traffic: Mapping[str, Traffic], devices: int, fsdp: int, peak: Peak) -> float:
    """Seconds that the devices exchange, one collective after the other.

    Sums go over all devices. All else goes over those that share a state out, where any do.

    Args:
      traffic: of one device, by kind of collective.
      devices: in all.
      fsdp: that share a state out.
      peak: with the links.

    Returns:
      Seconds.
    """
    return sum(
        _collectives(kind, found, devices if kind == "all-reduce" or fsdp == 1 else fsdp, peak)
        for kind, found in traffic.items()
    )


def agreement_seconds(devices: int) -> float:
    """Seconds of the sum by which processes tell each other of signals, once a step: its hops."""
    return 2 * math.log2(machines(devices)) * HOP


def _collectives(kind, found, devices, peak):
    """Seconds of the collectives of one kind, by rings inside machines and between them.

    Each device sends (n - 1) / n of the bytes once, and of a sum twice: to add its share up, and
    to gather those of the others. Between machines go shares of what a machine holds together, but
    of what is sent from each device to each. A tree's hops are log2 n, of a sum twice that.
    """
    inside = min(devices, MACHINE)
    outside = devices / inside
    passes = 2 if kind == "all-reduce" else 1
    shared = 1 if kind in ("all-to-all", "collective-permute") else inside
    local = (inside - 1) / inside * found.bytes / (peak.link * 1e9)
    distant = (outside - 1) / outside * found.bytes / shared / (peak.network * 1e9)
    return passes * (local + distant + found.count * HOP * math.log2(devices))
