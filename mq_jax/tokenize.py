"""Encodes folders of images, decodes their tokens, reconstructs: the command line.

python -m mq_jax.tokenize encode --tokenizer runs/mine --input IMAGES --output TOKENS
python -m mq_jax.tokenize decode --tokenizer runs/mine --input TOKENS --output DECODED
python -m mq_jax.tokenize reconstruct --tokenizer runs/mine --input IMAGES --output DECODED
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import tqdm
from absl import logging

from mq_jax import console, tokens
from mq_jax.cache import use_compilation_cache
from mq_jax.data.transforms import make_eval_transform
from mq_jax.tokenizer import Tokenizer, load_tokenizer
from mq_jax.transcribe import (
    Item,
    decode_tokens,
    encode_images,
    list_images,
    png_paths,
    read_images,
    reconstruct_images,
    write_pngs,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: its arguments; None: those of the process.

    Returns:
      The exit code: 0; 1 for an error, where every image is bad, or any with --strict; 130 where
      it was interrupted.
    """
    given = _parser().parse_args(argv)
    console.log_to_terminal()
    use_compilation_cache()
    try:
        return _COMMANDS[given.command](given)
    except KeyboardInterrupt:
        logging.error("Interrupted; the same command goes on where it was.")
        return 130
    except (ValueError, OSError) as error:
        logging.error("error: %s", error)
        return 1


def _encode(given) -> int:
    root, names = list_images(given.input)
    _check_output(given)
    tokenizer = load_tokenizer(given.tokenizer)
    preparation, transform = _preparation(given, tokenizer)
    claim = _claim(tokenizer, "tokens", preparation)
    manifest = tokens.claim_folder(given.output, claim, force=given.force)
    done = tokens.written_names(given.output, manifest)
    account = _Account(names, done, "encoded", preparation)
    manifest["bad"] = account.bad
    writer = tokens.ShardWriter(given.output, manifest)
    items = read_images(root, account.left, transform)
    try:
        for part in encode_images(tokenizer, items, given.batch_size, account.name_bad):
            writer.add(part)
            account.advance(len(part.names))
    finally:
        # What is encoded is not lost to a Ctrl-C.
        writer.flush()
        account.close()
    manifest["complete"] = True
    tokens.write_manifest(given.output, manifest)
    shape = "codes of several shapes"
    if manifest["shape"] is not None:
        shape = " x ".join(map(str, manifest["shape"])) + " codes each"
    return account.sum_up(f"{shape}, in {given.output}", given.strict)


def _decode(given) -> int:
    made_by = tokens.tokenizer_of(given.input)
    _check_output(given)
    tokenizer = load_tokenizer(given.tokenizer)
    if made_by != tokenizer.fingerprint:
        raise ValueError(
            f"{given.input} was made by another tokenizer, of fingerprint {made_by[:16]}...; "
            f"{given.tokenizer} has {tokenizer.fingerprint[:16]}.... Decode with the one that "
            "encoded."
        )
    names = [name for part in tokens.read_tokens(given.input) for name in part.names]

    def decoded(account):
        shards = tokens.read_tokens(given.input)
        return decode_tokens(tokenizer, shards, set(account.left), given.batch_size)

    return _write(given, names, _claim(tokenizer, "images", None), decoded)


def _reconstruct(given) -> int:
    root, names = list_images(given.input)
    _check_output(given)
    tokenizer = load_tokenizer(given.tokenizer)
    preparation, transform = _preparation(given, tokenizer)

    def reconstructed(account):
        items = read_images(root, account.left, transform)
        return reconstruct_images(tokenizer, items, given.batch_size, account.name_bad)

    return _write(given, names, _claim(tokenizer, "images", preparation), reconstructed)


def _write(given, names, claim, images) -> int:
    """Writes PNGs into a claimed folder; those that are there are kept."""
    paths = png_paths(names)
    manifest = tokens.claim_folder(given.output, claim, force=given.force)
    done = set()
    if not given.force:
        done = {name for name in names if (given.output / paths[name]).exists()}
    account = _Account(names, done, "written", claim["preparation"])
    manifest["bad"] = account.bad
    try:
        for _ in write_pngs(given.output, paths, images(account)):
            account.advance(1)
    finally:
        account.close()
    manifest |= {"images": len(names) - len(account.bad), "complete": True}
    tokens.write_manifest(given.output, manifest)
    return account.sum_up(f"PNG files, in {given.output}", given.strict)


class _Account:
    """What is done, what is left and what cannot be read, for the bar and the last line."""

    def __init__(self, names: Sequence[str], done: set[str], verb: str, preparation: Any):
        self.left = [name for name in names if name not in done]
        self.bad: list[dict[str, str]] = []
        self._names, self._kept, self._verb = names, len(names) - len(self.left), verb
        self._count, self._started = 0, time.monotonic()
        if preparation is not None:
            logging.info("%s", _told(preparation))
        self._bar = tqdm.tqdm(
            total=len(names),
            initial=self._kept,
            unit="image",
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def advance(self, images: int) -> None:
        """Counts images that are done."""
        self._count += images
        self._bar.update(images)

    def name_bad(self, item: Item) -> None:
        """Names an image that cannot be read."""
        self.bad.append({"name": item.name, "reason": item.reason})
        logging.warning("Skipping %s: %s", item.name, item.reason)
        self._bar.update(1)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def sum_up(self, where: str, strict: bool) -> int:
        """Prints the last line; returns the exit code."""
        seconds = time.monotonic() - self._started
        parts = [f"{self._count} {self._verb}, {where}"]
        if self._count:
            parts.append(f"{self._count / seconds:.1f} images/s")
        if self._kept:
            parts.append(f"{self._kept} were there already")
        if self.bad:
            parts.append(f"{len(self.bad)} of {len(self._names)} cannot be read")
        print("; ".join(parts))
        all_bad = len(self.bad) == len(self._names)
        return int(all_bad or (strict and bool(self.bad)))


def _preparation(given, tokenizer: Tokenizer):
    """How images are made, as the manifest has it, and the function; (None, None): not at all."""
    trained = tokenizer.preparation
    if given.size is None:
        # A model of crops at their own scale takes whole images at their own scale.
        scaled = trained["resize"] or trained["crop"]
        preparation = dict(trained) if scaled else None
    elif given.size == 0:
        preparation = None
    else:
        preparation = {**trained, "image_size": given.size, "resize": True}
    if preparation is None:
        return None, None
    return preparation, make_eval_transform(**preparation)


def _told(preparation):
    """The geometry in a sentence."""
    crop = f"centre crop {preparation['crop']}, then " if preparation["crop"] else ""
    side = preparation["image_size"]
    scaled = f"smaller side to {side} ({preparation['filter']}), " if preparation["resize"] else ""
    return f"Images: {crop}{scaled}centre crop {side} x {side}; --size=0 keeps each as it is."


def _claim(tokenizer: Tokenizer, kind: str, preparation) -> dict[str, Any]:
    return {
        "kind": kind,
        "tokenizer": tokenizer.fingerprint,
        "codebook_size": tokenizer.size,
        "downsampling": tokenizer.downsampling,
        "preparation": preparation,
    }


def _check_output(given) -> None:
    """Raises where the output is no folder, or would be read as input."""
    if given.output.exists() and not given.output.is_dir():
        raise NotADirectoryError(f"The output {given.output} is a file; expected a folder.")
    source, target = given.input.resolve(), given.output.resolve()
    if source == target or source in target.parents:
        raise ValueError(f"The output {given.output} lies in the input {given.input}: move it.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mq_jax.tokenize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {
        "encode": "Images to token files, .npz shards under a manifest.",
        "decode": "Token files to PNG files under the images' names.",
        "reconstruct": "Images to PNG files of what the tokenizer makes of them.",
    }.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        add = functools.partial(command.add_argument, metavar="PATH", type=_path, required=True)
        add("--tokenizer", help="an export, or the folder of a run that has one")
        add("--input", help="a folder, at any depth, or one file")
        add("--output", help="a folder; it is made, and the same command goes on in it")
        command.add_argument(
            "--batch_size", "--batch-size", type=_positive, default=64, help="default: 64"
        )
        command.add_argument(
            "--force", action="store_true", help="start anew in an output that is not empty"
        )
        command.add_argument(
            "--strict", action="store_true", help="exit with 1 if any image cannot be read"
        )
        if name != "decode":
            command.add_argument(
                "--size",
                type=_natural,
                help="smaller side in pixels, centre crop to a square; 0: images as they are; "
                "default: as the tokenizer was trained, or as they are if that was on crops alone",
            )
    return parser


def _path(text):
    return pathlib.Path(text).expanduser()


def _natural(text):
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return int(text)


def _positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return int(text)


_COMMANDS = {"encode": _encode, "decode": _decode, "reconstruct": _reconstruct}


if __name__ == "__main__":
    sys.exit(main())
