"""What XLA would leave of a traced program, told from its text without compiling it."""

import re
from collections.abc import Iterator
from typing import Any

from mq_jax.planning.hlo import CALLED, Instruction, Module, path_of, trips

# What tells two instructions with equal operands apart: not their names, nor where they stem from.
_LABELS = re.compile(r",? ?(?:metadata|backend_config|frontend_attributes|sharding)=\{.*$")


def merged(module: Module) -> Iterator[tuple[Instruction, int, str]]:
    """What `executed` would yield of a traced program, had XLA merged and dropped what it can.

    Instructions that nothing reads are left out, and of several with the same opcode, attributes
    and operands one is kept, whatever function they stand in: dead code and common
    subexpressions go. Rematerialisation's barriers keep apart what it computes twice.

    Args:
      module: of a program before XLA's optimisations, on one device.

    Yields:
      As executed.
    """
    return _Numbering(module).visit(module.entry, (), 1, "")[1]


class _Numbering:
    """Numbers values so that equal computations have equal numbers; a tuple's is a tuple."""

    def __init__(self, module: Module):
        self._module = module
        self._numbers: dict[Any, int] = {}

    def visit(self, name, arguments, times, outer):
        """(the number of what the computation returns, what is new in it)."""
        computation, values, new = self._module.computations[name], {}, []
        for instruction in _live(computation):
            path = path_of(instruction.op_name, outer)
            if instruction.opcode == "parameter" and arguments:
                value = arguments[int(instruction.operands[0])]
            else:
                read = tuple(values[o] for o in instruction.operands if o in values)
                value = self._value(instruction, read, times, path, new)
            values[instruction.name] = value
        return values[computation.root], new

    def _value(self, instruction, read, times, path, new):
        """The number of an instruction's value; appends to `new` what runs for it."""
        match instruction.opcode:
            case "tuple":
                return read
            case "get-tuple-element" if isinstance(read[0], tuple):
                return read[0][int(re.search(r"index=(\d+)", instruction.attributes)[1])]
            case "call":
                value, inside = self.visit(instruction.called[0], read, times, path)
                new.extend(inside)
                return value
            case "opt-barrier":
                whole = self._number(("opt-barrier", read))[0]
                count = len(instruction.results)
                parts = tuple(self._number(("behind", whole, i))[0] for i in range(count))
                return parts if isinstance(read[0], tuple) else parts[0]
        if instruction.opcode == "while":
            return self._loop(instruction, read, times, path, new)
        literal = instruction.operands if not read else ()
        applied = tuple(self._applied(name) for name in instruction.called)
        attributes = CALLED.sub("", _LABELS.sub("", instruction.attributes))
        key = (instruction.opcode, instruction.results, read, literal, applied, attributes)
        value, first = self._number(key)
        if first:
            new.append((instruction, times, path))
        return value

    def _loop(self, loop, read, times, path, new):
        inside = times * trips(self._module, loop)
        count = len(loop.results)
        carried = tuple(self._number(("carried", read, i))[0] for i in range(count))
        body = re.search(r"body=%?([\w.\-]+)", loop.attributes)[1]
        result, instructions = self.visit(body, (carried,), inside, path)
        new.extend(instructions)
        value = self._number(("while", read, result))[0]
        return tuple(self._number(("after", value, i))[0] for i in range(count))

    def _applied(self, name):
        """What a reduction applies."""
        return tuple(i.opcode for i in self._module.computations[name].instructions)

    def _number(self, key):
        """(its number, whether it is new)."""
        before = len(self._numbers)
        return self._numbers.setdefault(key, before), len(self._numbers) > before


def _live(computation):
    """The instructions that the returned value depends on, in order."""
    needed, live = {computation.root}, []
    for instruction in reversed(computation.instructions):
        if instruction.name in needed:
            needed.update(instruction.operands)
            live.append(instruction)
    return reversed(live)
