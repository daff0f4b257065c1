"""Floating-point operations of a program, by the part of the model that asks for them."""

import functools
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from mq_jax.planning.hlo import Instruction, parse
from mq_jax.planning.hlo_merge import merged

# Parts by what is found in the path of JAX's names, the first that matches.
_PARTS = (
    ("LPIPS", "lpips"),
    ("discriminator", "Discriminator"),
    ("encoder", "AutoEncoder.encode"),
    ("decoder", "AutoEncoder.features"),
    ("decoder", "AutoEncoder.pixels"),
    ("lookup", "lookup"),
    ("hyper-net", "Codebook"),
    ("hyper-net", "Bridge"),
    ("quantizer", "quantizer"),
    # Of a prior.
    ("transformer", "/trunk/"),
    ("heads", "/levels/"),
)
REST = "optimizers, the rest"
PARTS = (*dict.fromkeys(part for part, _ in _PARTS), REST)

_ELEMENTWISE = frozenset(
    "abs add and atan2 cbrt ceil clamp compare cosine divide erf exponential "
    "exponential-minus-one floor log log-plus-one logistic maximum minimum multiply negate not or "
    "power remainder rsqrt select sign sine sqrt subtract tanh".split()
)


class Flops(NamedTuple):
    """Operations of one kind of thing.

    Attributes:
      matrix: of convolutions and matrix products, two for a multiplication and its addition.
      elementwise: of all else, one for an element of an arithmetic result or of what a reduction
        reads.
    """

    matrix: float
    elementwise: float

    def plus(self, other: "Flops", times: float = 1) -> "Flops":
        """The sum."""
        return Flops(
            self.matrix + times * other.matrix, self.elementwise + times * other.elementwise
        )


NOTHING = Flops(0, 0)


def by_part(instructions: Iterable[tuple[Instruction, int, str]]) -> dict[str, Flops]:
    """Operations by part; the parts add up to the program.

    Args:
      instructions: (instruction, how often it runs, its path), as hlo.executed yields them.

    Returns:
      Flops of each of PARTS, in that order.
    """
    found = dict.fromkeys(PARTS, NOTHING)
    for instruction, times, path in instructions:
        flops = flops_of(instruction)
        if flops != NOTHING:
            part = part_of(path)
            found[part] = found[part].plus(flops, times)
    return found


def of_traced(lowered: jax.stages.Lowered) -> dict[str, Flops]:
    """Operations of a traced program by part, less what XLA is sure to merge or drop.

    Args:
      lowered: on one device.

    Returns:
      As by_part.
    """
    return by_part(merged(parse(lowered.as_text("hlo", debug_info=True))))


def part_of(path: str) -> str:
    """The part, one of PARTS, that a path of names belongs to; the innermost that tells decides."""
    for names in path.splitlines():
        for part, mark in _PARTS:
            if mark in names:
                return part
    return REST


def flops_of(instruction: Instruction) -> Flops:
    """Operations of one instruction, run once; those of what it calls are left out.

    Args:
      instruction: from hlo.parse.

    Returns:
      A Flops.
    """
    opcode, size = instruction.opcode, sum(array.size for array in instruction.results[:1])
    if opcode == "dot":
        contracted = _numbers(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        lhs = instruction.inputs[0][0].shape
        return Flops(2 * size * math.prod(lhs[axis] for axis in contracted), 0)
    if opcode == "convolution":
        return Flops(2 * _multiplications(instruction), 0)
    if opcode in _ELEMENTWISE:
        return Flops(0, size)
    if opcode == "reduce":
        return Flops(0, instruction.inputs[0][0].size)
    if opcode == "reduce-window":
        return Flops(0, size * math.prod(_window(instruction.attributes).get("size", (1,))))
    return NOTHING


def _multiplications(convolution):
    """Products of a convolution, those with padding or with holes of a dilation left out."""
    attributes = convolution.attributes
    lhs_labels, rhs_labels, out_labels = re.search(
        r"dim_labels=(\w+)_(\w+)->(\w+)", attributes
    ).groups()
    (lhs,), (rhs,), (out,) = *convolution.inputs, convolution.results
    window = _window(attributes)
    positions = 1
    for axis in range(len(lhs_labels) - 2):
        label = str(axis)
        positions *= _positions(
            lhs.shape[lhs_labels.index(label)],
            rhs.shape[rhs_labels.index(label)],
            out.shape[out_labels.index(label)],
            *(window[key][axis] if key in window else 1 for key in ("stride", *_DILATIONS)),
            window["pad"][axis] if "pad" in window else 0,
        )
    groups = math.prod(_numbers(r"batch_group_count=(\d+)", attributes))
    # The kernel's inputs are those of one group of features.
    return (
        positions
        * (lhs.shape[lhs_labels.index("b")] // groups)
        * rhs.shape[rhs_labels.index("i")]
        * out.shape[out_labels.index("f")]
    )


_DILATIONS = ("lhs_dilate", "rhs_dilate")


@functools.cache
def _positions(inputs, kernel, outputs, stride, lhs_dilation, rhs_dilation, low):
    """Pairs of an output and a kernel position, along one axis, that meet an input."""
    out, tap = np.arange(outputs)[:, None], np.arange(kernel)
    at = out * stride + tap * rhs_dilation - low
    inside = (at >= 0) & (at % lhs_dilation == 0) & (at // lhs_dilation < inputs)
    return int(np.count_nonzero(inside))


def _window(attributes):
    """The fields of `window={...}`, a number for each axis; of paddings the lower."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    return {
        key: tuple(int(side.split("_")[0]) for side in text.split("x"))
        for key, text in fields.items()
    }


def _numbers(pattern, text):
    """The whole numbers in the first group of a pattern, none where it does not occur."""
    found = re.search(pattern, text)
    return [int(number) for number in found[1].split(",") if number] if found else []
