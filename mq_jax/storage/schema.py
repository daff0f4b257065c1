"""JSON that anyone may have written: read within a limit and checked at once against a schema.

A schema is a rule; a dict of schemas by field, which may not lack, beside others; a list of one
schema, for a list of any length; or Each or Nullable of a schema.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mq_jax.storage.files import read_bytes

# Configurations, cards and costs have some kilobytes.
MOST_BYTES = 2**24

# Python's own limit depends on who calls; what writes these files needs four.
MOST_DEPTH = 32

# A rule says what it expects, and tells whether a value is that.
Rule = tuple[str, Callable[[Any], bool]]


class Each(NamedTuple):
    """An object whose values are of one schema, whatever their names."""

    of: Any


class Nullable(NamedTuple):
    """A value that may be null."""

    of: Any


ANY: Rule = ("anything", lambda value: True)
TEXT: Rule = ("text", lambda value: isinstance(value, str))
FLAG: Rule = ("true or false", lambda value: isinstance(value, bool))
# True is an int to Python.
NUMBER: Rule = (
    "a finite number",
    lambda value: type(value) is int or (type(value) is float and math.isfinite(value)),
)
SHA256: Rule = (
    "64 hexadecimal digits",
    lambda value: re.fullmatch("[0-9a-f]{64}", value) is not None,
)
AMOUNT: Rule = (
    "a finite number of at least 0",
    lambda value: NUMBER[1](value) and value >= 0,
)


def whole(least: int, most: int = 2**63 - 1) -> Rule:
    """The rule of whole numbers.

    Args:
      least: the smallest.
      most: the largest.

    Returns:
      A Rule.
    """
    expected = f"a whole number of at least {least}"
    if most < 2**63 - 1:
        expected += f" and at most {most}"
    return expected, lambda value: type(value) is int and least <= value <= most


def choice(*choices: str) -> Rule:
    """The rule of one text of several.

    Args:
      choices: the texts.

    Returns:
      A Rule.
    """
    return f"one of {', '.join(choices)}", lambda value: value in choices


def fits(rule: Rule, value: Any) -> bool:
    """Whether a value is what a rule expects, whatever its type.

    Args:
      rule: may take for granted what only some types have.
      value: any.

    Returns:
      False also where the rule cannot even ask.
    """
    try:
        return bool(rule[1](value))
    except (TypeError, AttributeError):
        return False


def check(value: Any, schema: Any, place: str = "") -> None:
    """Raises unless a value is of a schema.

    Args:
      value: of JSON.
      schema: as the module describes it.
      place: of the value in the whole, for messages.

    Raises:
      ValueError: one line: what was got, what was expected.
    """
    if isinstance(schema, Nullable):
        if value is not None:
            check(value, schema.of, place)
    elif isinstance(schema, Each):
        _require(value, dict, "an object", place)
        for name, own in value.items():
            check(own, schema.of, f"{place}[{shown(name)}]")
    elif isinstance(schema, dict):
        _require(value, dict, "an object", place)
        for name, own in schema.items():
            if name not in value:
                raise ValueError(f"{place or 'it'} lacks {name}")
            check(value[name], own, f"{place}.{name}" if place else name)
    elif isinstance(schema, list):
        _require(value, list, "a list", place)
        for i, own in enumerate(value):
            check(own, schema[0], f"{place}[{i}]")
    elif not fits(schema, value):
        raise ValueError(f"{place or 'it'} is {shown(value)}; expected {schema[0]}")


def parse(text: str | bytes, schema: Any = ANY) -> Any:
    """Reads JSON.

    Args:
      text: of any origin.
      schema: of what it should hold.

    Returns:
      What it holds.

    Raises:
      ValueError: it is no JSON, nested too deeply, or not of the schema.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = (x for x in level if isinstance(x, dict | list))
        level = [x for own in inner for x in (own.values() if isinstance(own, dict) else own)]
    if level:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")
    check(value, schema)
    return value


def read_json(path: str | os.PathLike, schema: Any = ANY, *, most: int = MOST_BYTES) -> Any:
    """Reads a JSON file.

    Args:
      path: of the file.
      schema: of what it should hold.
      most: bytes that it may have.

    Returns:
      What it holds.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be read.
      ValueError: as parse, or it is too large or no regular file; does not name the file.
    """
    return parse(read_bytes(path, most), schema)


def shown(value: Any) -> str:
    """A value in a message: short, of one line, without escapes for a terminal."""
    text = ascii(value) if isinstance(value, str | int | float | bool | None) else _kind(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value):
    return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"


def _require(value, kind, expected, place):
    if not isinstance(value, kind):
        raise ValueError(f"{place or 'it'} is {shown(value)}; expected {expected}")
