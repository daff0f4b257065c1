"""The progress of a run, early lines in a log or a live one on a terminal; tables that are kept."""

import io
import logging
import sys

import pytest

from mq_jax.terminal import console
from mq_jax.terminal.console import Progress


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self):
        return True


def reported(caplog, initial, every, total=40):
    """The steps of the lines of a run that reports every so many steps, and those reported."""
    progress, asked = Progress(total, initial), []
    with caplog.at_level(logging.INFO):
        for step in range(initial + 1, total + 1):
            progress.advance()
            if step % every == 0 or progress.is_early:
                asked.append(step)
                progress.report(step, ["9 images/s", "loss 0.0277"], 60.0)
    progress.close()
    lines = [record.getMessage() for record in caplog.records]
    assert all(line.endswith(f"/{total}  9 images/s  loss 0.0277  01:00 left") for line in lines)
    return [int(line.split("/")[0].removeprefix("step ")) for line in lines], asked


@pytest.mark.parametrize(
    "initial, every, expected",
    [
        (0, 20, [1, 10, 20, 40]),
        (0, 100, [1, 10]),
        # As soon as the reports that are due anyway tell it, there is nothing more to add.
        (0, 10, [1, 10, 20, 30, 40]),
        (0, 15, [1, 10, 15, 30]),
        (0, 5, [1, *range(5, 41, 5)]),
        (0, 1, list(range(1, 41))),
        # A run that goes on says it anew.
        (23, 20, [24, 33, 40]),
        (19, 20, [20, 29, 40]),
    ],
)
def test_a_log_says_early_how_fast_it_goes(caplog, initial, every, expected):
    lines, asked = reported(caplog, initial, every)
    assert lines == asked == expected


def test_on_a_terminal_the_live_line_alone_says_it(caplog, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    lines, asked = reported(caplog, 0, 20)
    assert (lines, asked) == ([], [20, 40])
    assert "9 images/s, loss 0.0277" in screen.getvalue()


def test_a_table_is_kept_row_by_row_until_it_is_printed_whole(capsys):
    kept, states = [], []
    with console.tables_kept(kept, lambda: states.append([len(t["rows"]) for t in kept])):
        console.keep_table("first", ["name"], [["a"]])
        console.keep_table("first", ["name"], [["a"], ["b"]])
        assert not kept[-1]["whole"] and capsys.readouterr().out == ""
        console.print_table("at last", ["name"], [["a"], ["b"], ["c"]])
        console.keep_table("second", ["name"], [["d"]])
    console.print_table("after", ["name"], [])
    assert states == [[1], [2], [3], [3, 1]]
    assert [table["title"] for table in kept] == ["at last", "second"]
    assert [table["whole"] for table in kept] == [True, False]
