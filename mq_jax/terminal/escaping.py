"""Names from outside as a person may see them: they can neither break a line nor colour it."""

from __future__ import annotations

import os
import shlex
import unicodedata

# Spaces of other scripts and the joiners of letters and emoji are ordinary in names.
_JOINERS = "\u200c\u200d"


class Block(str):
    """Text of several lines that this program made, to be logged as it is."""

    __slots__ = ()


def visible(text: object) -> str:
    """A name, a path or a message as one line that does nothing but show.

    Line breaks, escape sequences, marks that turn the direction of writing and bytes that are no
    text appear as backslash escapes; all that prints stays as it is.

    Args:
      text: what is shown, by its str().

    Returns:
      One line, which UTF-8 can hold.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if _prints(c) else c.encode("unicode_escape").decode() for c in text)


def visible_block(text: str, indent: str = "") -> str:
    """Text of several lines, each of them made visible.

    Args:
      text: lines divided by line feeds.
      indent: of the lines after the first.

    Returns:
      As many lines.
    """
    return f"\n{indent}".join(visible(line) for line in text.split("\n"))


def shell_word(word: str) -> str:
    """A word of a command that is to be copied: on one line, whatever it holds.

    Args:
      word: an argument, as sys.argv has it.

    Returns:
      What bash and zsh read as that word.
    """
    if word.isprintable():
        return shlex.quote(word)
    shown = (c if _prints(c) and c not in "\\'" else _bytes_escaped(c) for c in word)
    return f"$'{''.join(shown)}'"


def _prints(character: str) -> bool:
    return (
        character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
    )


def _bytes_escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
