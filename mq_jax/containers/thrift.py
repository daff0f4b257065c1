"""Structures in Thrift's compact protocol, as Parquet's footers and headers are written."""

from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _, _STRUCT = range(13)
_MOST_DEPTH = 8


def read_struct(data: bytes, at: int = 0, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Reads one structure.

    Args:
      data: begins with it, or holds it at a later place.
      at: where it begins.
      depth: of structures around it.

    Returns:
      Its fields by their numbers, doubles left out, and where it ends.

    Raises:
      IndexError: the data ends before it does.
      ValueError: it is none.
    """
    fields, number = {}, 0
    while (head := data[at]) != _STOP:
        at, kind = at + 1, head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _signed(data, at)
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """Reads a whole number of 7 bits a byte, the lowest first.

    Args:
      data: holds it.
      at: where it begins.

    Returns:
      The number, and where it ends.

    Raises:
      IndexError: the data ends before it does.
      ValueError: it has more than 64 bits.
    """
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _signed(data, at):
    value, at = read_unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at


def _value(data, at, kind, depth):
    """The value of a field, or of an element of a list, and where it ends."""
    if kind in (_I16, _I32, _I64):
        return _signed(data, at)
    if kind in (_BYTE, _TRUE, _FALSE):
        return data[at], at + 1
    if kind == _DOUBLE:
        return None, at + 8
    if kind == _BINARY:
        size, at = read_unsigned(data, at)
        if at + size > len(data):
            raise IndexError("a text that ends too early")
        return data[at : at + size], at + size
    if depth < _MOST_DEPTH and kind == _STRUCT:
        return read_struct(data, at, depth + 1)
    if depth < _MOST_DEPTH and kind in (_LIST, _SET):
        head, at = data[at], at + 1
        size, at = (head >> 4, at) if head >> 4 < 15 else read_unsigned(data, at)
        values = []
        for _ in range(size):
            value, at = _value(data, at, head & 15, depth + 1)
            values.append(value)
        return values, at
    raise ValueError(f"a field of the kind {kind} at depth {depth}")
