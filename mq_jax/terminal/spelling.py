"""What a person may have meant."""

import difflib
from collections.abc import Iterable


def suggestion(value: str, choices: Iterable[str], prefix: str = "") -> str:
    """A phrase with the nearest choice, empty where none is near.

    Args:
      value: what was got.
      choices: what could have been.
      prefix: of both, which says nothing about how near they are.

    Returns:
      ` (did you mean X?)` or an empty string.
    """
    near = difflib.get_close_matches(value, list(choices), n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""
