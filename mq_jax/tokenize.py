"""Encodes folders of images, decodes their tokens, reconstructs: the command line.

python -m mq_jax.tokenize encode --tokenizer runs/mine --input IMAGES --output TOKENS
python -m mq_jax.tokenize decode --tokenizer runs/mine --input TOKENS --output DECODED
python -m mq_jax.tokenize reconstruct --tokenizer runs/mine --input IMAGES --output DECODED
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mq_jax.devices.interrupt import end_quietly
from mq_jax.devices.memory import collect_seldom, keep_memory
from mq_jax.terminal.escaping import visible
from mq_jax.terminal.spelling import suggestion
from mq_jax.terminal.streams import protect_streams


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the arguments and runs one command.

    Args:
      argv: the arguments; None: those of the process.

    Returns:
      The exit code, as run_command's.
    """
    protect_streams()
    given = _parsed(sys.argv[1:] if argv is None else list(argv))
    # Only now: help, and errors in the arguments, need none of JAX.
    from mq_jax.modes.tokenizing import run_command

    return run_command(given)


class _Parser(argparse.ArgumentParser):
    """Shows what it does not understand on one line, and knows its flags."""

    def __init__(self, *arguments: Any, **options: Any):
        self.flags: list[str] = []
        super().__init__(*arguments, **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """As argparse's."""
        self.flags += names
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        """Ends the program with 2."""
        super().error(visible(message))


def _parsed(argv: list[str]) -> argparse.Namespace:
    """The arguments; what is none of them ends the program with what may have been meant."""
    parser, commands = _parser()
    if argv and not argv[0].startswith("-") and argv[0] not in commands:
        near = suggestion(argv[0], commands)
        parser.error(f"{argv[0]!r} is no command{near}; expected one of {', '.join(commands)}.")
    given, rest = parser.parse_known_args(argv)
    if rest:
        flag = rest[0].partition("=")[0]
        others = [name for name, command in commands.items() if flag in command.flags]
        near = suggestion(flag, commands[given.command].flags)
        told = f" (a flag of {', '.join(others)})" if others else near
        parser.error(f"unrecognized arguments: {' '.join(rest)}{told}")
    return given


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of the commands by their names."""
    parser = _Parser(
        prog="python -m mq_jax.tokenize",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {
        "encode": "Images to token files, .npz shards under a manifest.",
        "decode": "Token files to PNG files under the images' names.",
        "reconstruct": "Images to PNG files of what the tokenizer makes of them.",
    }.items():
        command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        add = functools.partial(command.add_argument, metavar="PATH", required=True)
        add("--tokenizer", help="an export, or the folder of a run that has one")
        add("--input", help="a folder, at any depth, or one file")
        add("--output", help="a folder; it is made, and the same command goes on in it")
        command.add_argument(
            "--batch_size", "--batch-size", type=_positive, default=64, help="default: 64"
        )
        command.add_argument(
            "--threads",
            type=_positive,
            help="that read images, and as many that write them; each holds a whole one; default: "
            "as many as this process may use CPU cores",
        )
        command.add_argument(
            "--force", action="store_true", help="start anew in an output that is not empty"
        )
        command.add_argument(
            "--strict", action="store_true", help="exit with 1 if any image cannot be read"
        )
        if name != "decode":
            command.add_argument(
                "--max_pixels",
                type=_positive,
                help="of an image; larger ones are bad; default: 100 million",
            )
            command.add_argument(
                "--max_bytes",
                type=_natural,
                help="of an image file, likewise; 0: any; default: 256 MiB",
            )
            command.add_argument(
                "--size",
                type=_natural,
                help="smaller side in pixels, centre crop to a square; 0: images as they are; "
                "default: as the tokenizer was trained, or as they are if that was on crops alone",
            )
    return parser, commands.choices


def _integer(least, text):
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
    return int(text)


_natural, _positive = functools.partial(_integer, 0), functools.partial(_integer, 1)


if __name__ == "__main__":
    # Before the slow imports: Ctrl-C in them is no reason for a traceback.
    end_quietly()
    # Before them, too: it may begin the program once more.
    keep_memory()
    collect_seldom()
    sys.exit(main())
