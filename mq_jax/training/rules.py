"""Rules for the fields of a configuration: kinds of values, and what is wrong with a whole one."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from mq_jax.data.sources import SPECS
from mq_jax.runs.workdir import flat
from mq_jax.storage.schema import Rule, fits
from mq_jax.terminal.spelling import suggestion


def problems(config: ConfigDict, rules: Mapping[str, Rule], base: str) -> Iterator[str]:
    """What is wrong with fields in themselves, whatever the others are.

    Args:
      config: any.
      rules: by dotted name.
      base: the file that lists the fields, for people.

    Yields:
      A line for each; of fields that are missing or unknown before any that has a wrong value.
    """
    values = {name: value for name, value in flat(config.to_dict()).items() if value != {}}
    for name in sorted(set(values) ^ set(rules)):
        problem, near = ("is missing", values) if name in rules else ("is unknown", rules)
        yield (
            f"config.{name} {problem}{suggestion(name, near, 'config.')}. "
            f"A configuration has exactly the fields of {base}."
        )
    for name, (expected, accepts) in rules.items():
        if name in values and not fits((expected, accepts), values[name]):
            near = _meant(values[name], accepts)
            yield f"config.{name} is {values[name]!r}; expected {expected}{near}."


@dataclasses.dataclass(frozen=True)
class Texts:
    """Accepts what a test accepts, and knows the texts that a mistyped one may be near to."""

    choices: tuple[str, ...]
    test: Callable[[Any], bool]

    def __call__(self, value: Any) -> bool:
        return self.test(value)


def _meant(value: Any, accepts: Callable) -> str:
    """A phrase with what the first wrong text may have been meant to be."""
    choices = getattr(accepts, "choices", ())
    texts = value if isinstance(value, tuple | list) else (value,)
    wrong = [text for text in texts if isinstance(text, str) and text not in choices]
    return suggestion(wrong[0], choices) if wrong else ""


def choice(*choices: str) -> Rule:
    """One of several texts."""
    return f"one of {', '.join(choices)}", Texts(choices, lambda value: value in choices)


def integer(least: int) -> Rule:
    """A whole number from `least` on."""
    expected = f"a whole number of at least {least}"
    return expected, lambda value: type(value) is int and value >= least


def number(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Rule:
    """A number in an interval."""
    expected = f"a number in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"

    def accepts(value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > low if open_low else value >= low
        return above and (value < high if open_high else value <= high)

    return expected, accepts


_INFINITY = float("inf")
NONNEGATIVE = number(0, _INFINITY, open_high=True)
POSITIVE = number(0, _INFINITY, open_low=True, open_high=True)
SHARE = number(0, 1)
BOOLEAN: Rule = ("True or False", lambda value: isinstance(value, bool))
TEXT: Rule = ("text", lambda value: isinstance(value, str))
_SOURCES = SPECS[1:]
SOURCE: Rule = (
    f"one of {', '.join(SPECS)}",
    Texts(
        _SOURCES,
        lambda value: value in _SOURCES or (value.startswith("tfds:") and len(value) > 5),
    ),
)
SPLIT: Rule = ("the name of a split", lambda value: isinstance(value, str) and bool(value))
SEED: Rule = ("a whole number in [0, 2^32)", lambda v: type(v) is int and 0 <= v < 2**32)
MESH: dict[str, Rule] = {
    "mesh.data": integer(0),
    "mesh.fsdp": integer(1),
    "mesh.shard_from": integer(0),
}
