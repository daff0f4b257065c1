"""Reading XLA's programs as text: instructions, how often each runs, what devices exchange."""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+)(?: \(.*)? \{$")
_INSTRUCTION = re.compile(r"\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_OPCODE = re.compile(r" ?(?P<opcode>[a-z][\w\-]*)\(")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# The computations that an instruction names.
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")


class Array(NamedTuple):
    """A type: f32[3,4] is Array("f32", (3, 4))."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes, layout and padding left out."""
        bits = _BITS.get(self.dtype) or int(re.sub(r"^[a-z]+(\d*).*$", r"\1", self.dtype) or 0)
        return self.size * bits // 8


class Instruction(NamedTuple):
    """One line of a program.

    Attributes:
      name: unique in its computation.
      opcode: such as `convolution`.
      results: what it returns; several for a tuple.
      operands: names of the instructions that it reads; the text between the parentheses of
        parameters and constants.
      inputs: what each operand returns.
      attributes: the text behind the operands.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    inputs: tuple[tuple[Array, ...], ...]
    attributes: str

    @property
    def op_name(self) -> str:
        """The path of JAX's names that it stems from; empty where XLA made it up."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ""

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls or applies."""
        return tuple(CALLED.findall(self.attributes))


class Computation(NamedTuple):
    """Instructions in an order in which they can run, and the name of the one returned."""

    instructions: tuple[Instruction, ...]
    root: str


class Module(NamedTuple):
    """A program: computations by name, and the name of the first."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Reads a program.

    Args:
      text: of `jax.stages.Compiled.as_text()` or `Lowered.as_text("hlo", debug_info=True)`.

    Returns:
      A Module.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations, entry, name, lines = {}, "", "", []
    for line in text.splitlines():
        if line.startswith("}") and name:
            computations[name] = _computation(lines)
            name = ""
        elif name:
            lines.append(line)
        elif not line.startswith(" ") and (found := _COMPUTATION.match(line)):
            name, lines = found["name"], []
            entry = name if found["entry"] else entry
    if not entry:
        raise ValueError("The text has no ENTRY computation; expected an HLO module.")
    return Module(computations, entry)


def executed(module: Module) -> Iterator[tuple[Instruction, int, str]]:
    """Every instruction that runs, those inside fusions and loops included.

    Args:
      module: from parse.

    Yields:
      (instruction, how often it runs, its path: a line for its own names, or some for those of
      its neighbours, and one for those of each caller, the innermost first). A loop whose trips
      are not known counts once; what a reduction applies is not visited.
    """

    def visit(computation, times, outer):
        names = _names(computation)
        for instruction in computation.instructions:
            path = path_of(names[instruction.name], outer)
            yield instruction, times, path
            inside = times * (trips(module, instruction) if instruction.opcode == "while" else 1)
            if instruction.opcode in ("fusion", "call", "while"):
                for called in instruction.called:
                    yield from visit(module.computations[called], inside, path)

    return visit(module.computations[module.entry], 1, "")


def path_of(op_name: str, outer: str) -> str:
    """The path of an instruction inside a caller with the path `outer`."""
    return f"{op_name}\n{outer}" if op_name else outer


def _names(computation):
    """The op_name of every instruction; lines of its neighbours' where XLA left none.

    XLA forgets the names of convolutions that it rewrites, gradients of kernels above all.
    """
    operands, names = {}, {}
    for instruction in computation.instructions:
        near = (names.get(name, "").partition("\n")[0] for name in instruction.operands)
        operands[instruction.name] = list(dict.fromkeys(filter(None, near)))
        names[instruction.name] = instruction.op_name or "\n".join(operands[instruction.name])
    nameless = {i.name for i in computation.instructions if not i.op_name}
    # Backwards, so that of several readers the first stands in the end.
    for instruction in reversed(computation.instructions):
        reader = names[instruction.name].partition("\n")[0]
        for operand in nameless.intersection(instruction.operands):
            names[operand] = "\n".join(filter(None, (reader, *operands[operand])))
    return names


def trips(module: Module, loop: Instruction) -> int:
    """How often a loop runs: as XLA notes it, else what its condition compares with."""
    if noted := _TRIPS.search(loop.attributes):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]
    limits = [
        int(instruction.operands[0])
        for instruction in module.computations[condition].instructions
        if instruction.opcode == "constant" and instruction.operands[0].isdigit()
    ]
    return limits[0] if len(limits) == 1 else 1


class Traffic(NamedTuple):
    """What devices exchange by one kind of collective.

    Attributes:
      count: how often a step runs one.
      bytes: of each device's arrays in a step: results of all-gather, operands of the others.
    """

    count: int
    bytes: int


def traffic(module: Module) -> dict[str, Traffic]:
    """The collectives of a program of one device.

    Args:
      module: of a compiled program.

    Returns:
      Traffic by kind, those of COLLECTIVES that occur.
    """
    found: dict[str, Traffic] = {}
    for instruction, times, _ in executed(module):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        # An asynchronous all-gather returns its operands before its results.
        results = instruction.results[-len(instruction.inputs) :]
        arrays = results if kind == "all-gather" else sum(instruction.inputs, ())
        before = found.get(kind, Traffic(0, 0))
        size = times * sum(array.bytes for array in arrays)
        found[kind] = Traffic(before.count + times, before.bytes + size)
    return {kind: found[kind] for kind in COLLECTIVES if kind in found}


def _computation(lines):
    """One computation from the lines between its braces."""
    instructions, results, root = [], {}, ""
    for line in lines:
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        instruction = _instruction(found["name"], found["rest"], results)
        instructions.append(instruction)
        results[instruction.name] = instruction.results
        root = instruction.name if found["root"] or not root else root
    return Computation(tuple(instructions), root)


def _instruction(name, rest, results):
    """One instruction from the text behind its name."""
    # A tuple's type has spaces and parentheses of its own.
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode = _OPCODE.match(rest, end)
    close = _closing(rest, opcode.end() - 1)
    between = re.sub(r"/\*.*?\*/", "", rest[opcode.end() : close])
    operands = tuple(between.split(", ")) if between else ()
    if opcode["opcode"] not in ("parameter", "constant"):
        operands = tuple(operand.split(" ")[-1].lstrip("%") for operand in operands)
    inputs = tuple(results[operand] for operand in operands if operand in results)
    return Instruction(
        name, opcode["opcode"], _arrays(rest[:end]), operands, inputs, rest[close + 1 :]
    )


@functools.cache
def _arrays(text):
    """The arrays of a type."""
    return tuple(
        Array(dtype, tuple(map(int, sides.split(","))) if sides else ())
        for dtype, sides in _ARRAY.findall(text)
    )


def _closing(text, start):
    """The position of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    raise ValueError(f"unbalanced parentheses in an HLO instruction: {text[:80]}")
