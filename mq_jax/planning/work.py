"""What each instruction of a compiled program has to do, and what asks for it."""

import functools
import re
from typing import NamedTuple

from mq_jax.planning.flops import NOTHING, flops_of
from mq_jax.planning.hlo import Module, path_of, trips

PRODUCTS, REST, NAMELESS = "products and convolutions", "everything else", "without a name"
# Groups by what is found in a path of JAX's names, the first that matches.
_GROUPS = (
    ("Winograd's sums", r"\bwinograd\b"),
    ("normalization", r"\b(?:Batch|Layer|Group|RMS)Norm"),
    ("optimizers", r"\boptimizer\b"),
    ("codebook and lookup", r"\b(?:quantizer|lookup|Codebook|Bridge)\b"),
    ("the rest of the nets", r"\b(?:AutoEncoder|Discriminator|lpips)\b"),
)
GROUPS = (PRODUCTS, *(group for group, _ in _GROUPS), REST, NAMELESS)
# The computations between which a conditional chooses.
_BRANCHES = re.compile(
    r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+))"
)


class Work(NamedTuple):
    """What one run of an instruction takes, with all that it calls.

    Attributes:
      group: one of GROUPS.
      flops: of products, convolutions and elementwise arithmetic, as flops.Flops counts them.
      bytes: of what it reads, each operand once and whole, and of what it returns.
      inside: names of the instructions that it calls.
    """

    group: str
    flops: float
    bytes: int
    inside: frozenset[str]


def works(module: Module) -> dict[str, Work]:
    """The work of every instruction that runs by itself: of those in loops too, not in fusions.

    Args:
      module: of a compiled program, in which names are unique.

    Returns:
      Work by name.
    """
    found: dict[str, Work] = {}

    @functools.cache
    def of_computation(name):
        instructions = module.computations[name].instructions
        flops, names = NOTHING, frozenset(each.name for each in instructions)
        for instruction in instructions:
            below, called = inside(instruction)
            flops, names = flops.plus(flops_of(instruction)).plus(below), names | called
        return flops, names

    def inside(instruction):
        flops, names = NOTHING, frozenset()
        times = trips(module, instruction) if instruction.opcode == "while" else 1
        for called in _run_by(instruction):
            below, own = of_computation(called)
            flops, names = flops.plus(below, times), names | own
        return flops, names

    def visit(name, outer):
        for instruction in module.computations[name].instructions:
            path = path_of(instruction.op_name, outer)
            below, names = inside(instruction)
            flops = flops_of(instruction).plus(below)
            group = PRODUCTS if flops.matrix else group_of(path)
            arithmetic = flops.matrix + flops.elementwise
            found[instruction.name] = Work(group, arithmetic, _bytes(instruction), names)
            for called in _run_by(instruction) if instruction.opcode != "fusion" else ():
                visit(called, path)

    visit(module.entry, "")
    return found


def group_of(path: str) -> str:
    """The group of an instruction without products inside.

    Args:
      path: lines of JAX's names, its own first and then those of its callers; the innermost
        that tells decides. Its neighbours' do not count: what XLA adds, as copies into another
        order, is told apart.

    Returns:
      One of GROUPS.
    """
    for names in path.splitlines():
        for group, mark in _GROUPS:
            if re.search(mark, names):
                return group
    return REST if path else NAMELESS


def floor_seconds(work: Work, flop_rate: float, byte_rate: float) -> float:
    """The least time of one run: that of its arithmetic or of its bytes, whichever is longer.

    Args:
      work: of an instruction.
      flop_rate: FLOP/s of a large matrix product.
      byte_rate: bytes/s, read and written, of a large copy.

    Returns:
      Seconds.
    """
    return max(work.flops / flop_rate, work.bytes / byte_rate)


def _run_by(instruction):
    """Names of the computations that an instruction runs; none of what a reduction applies."""
    if instruction.opcode == "conditional":
        found = _BRANCHES.findall(instruction.attributes)
        return [name.lstrip("%") for pair in found for name in "".join(pair).split(", ")]
    return instruction.called if instruction.opcode in ("fusion", "call", "while") else ()


def _bytes(instruction):
    """Of what it reads, an operand that it takes twice once, and of what it returns."""
    # Of parameters and constants the operands are text, and they have no inputs.
    inputs = dict(zip(instruction.operands, instruction.inputs, strict=False))
    return sum(array.bytes for array in (*sum(inputs.values(), ()), *instruction.results))
