"""Names from outside: shown on one line, changed only where they would do something."""

import os
import subprocess

import pytest

from mq_jax.terminal.escaping import shell_word, visible

ORDINARY = [
    "a b.jpg",
    "[1](2){3}.png",
    "back\\slash",
    "Größe ≤ 3.jpg",
    "写真\u3000一.jpg",
    "👩‍🎨.png",
    "",
]

HOSTILE = {
    "line\nbreak": r"line\nbreak",
    "carriage\rreturn": r"carriage\rreturn",
    "tab\t": r"tab\t",
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x9bcontrol": r"\x9bcontrol",
    "bell\x07\x7f": r"bell\x07\x7f",
    "turned\u202egpj": r"turned\u202egpj",
    "line\u2028and\u2029paragraph\x85": r"line\u2028and\u2029paragraph\x85",
    "\udcff\udce9": r"\udcff\udce9",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay_as_they_are(name):
    assert visible(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_do_something_is_shown_instead(name):
    shown = visible(name)
    assert shown == HOSTILE[name]
    assert shown.encode("utf-8") and len(shown.splitlines()) == 1


@pytest.mark.parametrize("name", [*ORDINARY, *HOSTILE, "it's", "a\n'\\b$(c)`d`"])
def test_a_shell_reads_the_very_word_from_one_line(name):
    word = shell_word(name)
    assert len(word.splitlines()) == 1
    read = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert read.stdout == os.fsencode(name)
