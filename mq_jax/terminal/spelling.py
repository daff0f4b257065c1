"""What a person may have meant."""

import difflib
from collections.abc import Iterable


def nearest(value: str, choices: Iterable[str]) -> str:
    """The choice that a text is nearest to, whatever the case of its letters.

    Args:
      value: what was got.
      choices: what could have been.

    Returns:
      One of the choices; "" where none is near.
    """
    lowered = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(value.lower(), list(lowered), n=1)
    return lowered[near[0]] if near else ""


def suggestion(value: str, choices: Iterable[str], prefix: str = "") -> str:
    """A phrase with the nearest choice, empty where none is near.

    Args:
      value: what was got.
      choices: what could have been.
      prefix: of both, which says nothing about how near they are.

    Returns:
      ` (did you mean X?)` or an empty string.
    """
    near = nearest(value, choices)
    return f" (did you mean {prefix}{near}?)" if near else ""
