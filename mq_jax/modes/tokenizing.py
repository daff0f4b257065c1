"""tokenize encode, decode, reconstruct: a tokenizer over a folder, from claim to last line."""

from __future__ import annotations

import argparse
import contextlib
import os

from absl import logging

from mq_jax.devices.cache import use_compilation_cache
from mq_jax.devices.cores import usable_cores
from mq_jax.devices.interrupt import stopping
from mq_jax.devices.places import local_path
from mq_jax.devices.platforms import require_platform
from mq_jax.devices.reading import end_within
from mq_jax.images.decode import Reading
from mq_jax.images.transforms import make_eval_transform
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell
from mq_jax.terminal.tally import Tally
from mq_jax.tokenizers import tokens
from mq_jax.tokenizers.claims import claimed, make_claim, write_manifest
from mq_jax.tokenizers.pngs import png_paths, write_pngs
from mq_jax.tokenizers.sources import Sources, stamp
from mq_jax.tokenizers.stages import Stages
from mq_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mq_jax.tokenizers.transcribe import (
    decode_tokens,
    encode_images,
    list_images,
    read_images,
    reconstruct_images,
)


# A signal counts as a Ctrl-C, so that what is done is kept.
@stopping()
def run_command(given: argparse.Namespace) -> int:
    """Runs one command.

    Args:
      given: its arguments, as mq_jax.tokenize parses them.

    Returns:
      The exit code: 0; 1 for an error, where every image is bad, or any with --strict; 130 where
      it was interrupted.
    """
    console.log_to_terminal()
    use_compilation_cache()
    try:
        for name in ("tokenizer", "input", "output"):
            setattr(given, name, local_path(getattr(given, name), f"--{name}"))
        require_platform()
        return _COMMANDS[given.command](given)
    except KeyboardInterrupt:
        without = " without --force" if given.force else ""
        logging.error("Interrupted; the same command%s goes on where it was.", without)
        # A thread that hangs in a read would make Python wait for ever.
        end_within(5, 130)
        return 130
    except (ValueError, OSError) as error:
        # Of a full disk, say, the system tells no path.
        where = "" if getattr(error, "filename", "") else f" (writing to {given.output})"
        logging.error("error: %s%s", error, where if isinstance(error, OSError) else "")
        return 1


def _images(given):
    """What encode and reconstruct begin with; the last is (tally, sources, stages) -> items."""
    root, names = list_images(given.input)
    listed = {name: stamp(root / name) for name in names}
    _check_output(given)
    tokenizer = load_tokenizer(given.tokenizer)
    preparation, transform, reading = _preparation(given, tokenizer)
    claim = make_claim(given.command, given.input, tokenizer, preparation)

    def read(tally, sources, stages):
        items = read_images(root, tally.left, transform, reading, given.batch_size, stages)
        return sources.watched(items, root)

    return names, listed, tokenizer, claim, read


def _encode(given) -> int:
    names, listed, tokenizer, claim, read = _images(given)
    stages = _stages(given)
    with claimed(given.output, claim, force=given.force) as manifest:
        if given.force:
            tokens.remove_shards(given.output)
        done = tokens.written_names(given.output)
        with _sources(given, listed, done) as (sources, changed):
            writer = tokens.ShardWriter(given.output, manifest, stages)
            tally = Tally(names, done, "encoded")
            manifest["bad"] = tally.bad
            size, refuse = given.batch_size, tally.name_bad
            # Closed whatever happens: a thread that reads ahead waits for who takes it.
            with contextlib.closing(read(tally, sources, stages)) as items:
                try:
                    for part in encode_images(tokenizer, items, size, refuse, stages):
                        writer.add(part)
                        tally.advance(len(part.names))
                finally:
                    # What is encoded is not lost to a Ctrl-C.
                    writer.flush()
                    tally.close()
            sources.complete()
        write_manifest(given.output, manifest | {"complete": True})
    shape = "codes of several shapes"
    if manifest["shape"] is not None:
        shape = " x ".join(map(str, manifest["shape"])) + " codes each"
    return _ended(tally, f"{shape}, in {given.output}", given, changed, stages)


def _decode(given) -> int:
    made_by, complete = tokens.token_source(given.input)
    _check_output(given)
    if not complete:
        logging.warning("%s is not complete; the same encode command finishes it.", given.input)
    tokenizer = load_tokenizer(given.tokenizer)
    if made_by != tokenizer.fingerprint:
        raise ValueError(
            f"{given.input} was made by another tokenizer, of fingerprint {made_by[:16]}...; "
            f"{given.tokenizer} has {tokenizer.fingerprint[:16]}.... Decode with the one that "
            "encoded."
        )
    listed, names = tokens.shard_states(given.input), tokens.read_names(given.input)

    def decoded(tally, sources, stages):
        for name in listed:
            sources.note(name)
        shards = tokens.read_tokens(given.input, tokenizer.downsampling)
        return decode_tokens(tokenizer, shards, set(tally.left), given.batch_size, stages)

    claim = make_claim("decode", given.input, tokenizer, None)
    return _write(given, names, listed, claim, decoded)


def _reconstruct(given) -> int:
    names, listed, tokenizer, claim, read = _images(given)

    def reconstructed(tally, sources, stages):
        items = read(tally, sources, stages)
        return reconstruct_images(tokenizer, items, given.batch_size, tally.name_bad, stages)

    return _write(given, names, listed, claim, reconstructed)


def _write(given, names, listed, claim, images) -> int:
    """Writes PNGs into a claimed folder; those that are there are kept."""
    paths, stages = png_paths(names), _stages(given)
    with claimed(given.output, claim, force=given.force) as manifest:
        if given.force:
            # Before the first is written: a call that goes on must not keep one of these.
            for path in paths.values():
                # What cannot be removed cannot be replaced either, and is named then.
                with contextlib.suppress(OSError, ValueError):
                    (given.output / path).unlink(missing_ok=True)
        done = {name for name in names if os.path.isfile(given.output / paths[name])}
        # A decoded image comes from a shard, whichever.
        used = done if given.command == "reconstruct" else listed if done else ()
        with _sources(given, listed, used) as (sources, changed):
            tally = Tally(names, done, "written")
            manifest["bad"] = tally.bad
            with contextlib.closing(images(tally, sources, stages)) as items:
                try:
                    for _ in write_pngs(given.output, paths, items, tally.name_bad, stages):
                        tally.advance(1)
                finally:
                    tally.close()
            sources.complete()
        count = len(names) - len(tally.bad)
        write_manifest(given.output, manifest | {"images": count, "complete": True})
    return _ended(tally, f"PNG files, in {given.output}", given, changed, stages)


@contextlib.contextmanager
def _sources(given, listed, done):
    """(Sources, the phrases of what is not as earlier calls found it), which it warns of."""
    sources = Sources(given.output, listed, anew=given.force)
    try:
        changed = sources.changed(done)
        if changed:
            told = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
            logging.warning(
                "%d input(s) changed after they were read: %s. What is in %s is of those before; "
                "--force starts anew.",
                *(len(changed), told, given.output),
            )
        yield sources, changed
    finally:
        sources.close()


def _stages(given) -> Stages:
    return Stages(usable_cores() if given.threads is None else given.threads)


def _ended(tally, where, given, changed, stages) -> int:
    """The last lines, and the exit code."""
    code = max(tally.sum_up(where, given.strict), int(given.strict and bool(changed)))
    if told := stages.told():
        tell(told)
    return code


def _preparation(given, tokenizer: Tokenizer):
    """How images are made, as the manifest has it, the function, how files are read."""
    trained = dict(tokenizer.preparation)
    # Exports of before it left colours as they are.
    colours = {"icc": True} if trained.pop("icc", False) else {}
    limits = {"max_pixels": given.max_pixels, "max_bytes": given.max_bytes}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    reading = Reading(icc=bool(colours), **limits)
    if given.size is None:
        # A model of crops at their own scale takes whole images at their own scale.
        scaled = trained["resize"] or trained["crop"]
        preparation = dict(trained) if scaled else None
    elif given.size == 0:
        preparation = None
    else:
        preparation = {**trained, "image_size": given.size, "resize": True}
    logging.info("Images: %s", _told(preparation, trained, asked=given.size is not None))
    if preparation is None:
        return None, None, reading
    return {**preparation, **colours}, make_eval_transform(**preparation), reading


def _told(preparation, trained, *, asked):
    """The geometry in a sentence; where nobody asked for it, also why."""
    if preparation is None:
        side = trained["image_size"]
        why = "" if asked else f", as the model was trained on crops of {side} x {side} alone"
        return f"each as it is{why}; --size=N scales and crops all to N x N."
    crop = f"centre crop {preparation['crop']}, then " if preparation["crop"] else ""
    side = preparation["image_size"]
    scaled = f"smaller side to {side} ({preparation['filter']}), " if preparation["resize"] else ""
    return f"{crop}{scaled}centre crop {side} x {side}; --size=0 keeps each as it is."


def _check_output(given) -> None:
    """Raises where the output is no folder, or would be read as input."""
    if given.output.exists() and not given.output.is_dir():
        raise NotADirectoryError(f"The output {given.output} is a file; expected a folder.")
    source, target = given.input.resolve(), given.output.resolve()
    if source == target or source in target.parents:
        raise ValueError(f"The output {given.output} lies in the input {given.input}: move it.")
    there = next(path for path in (target, *target.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise PermissionError(f"The output {given.output} cannot be written to: {there}.")


_COMMANDS = {"encode": _encode, "decode": _decode, "reconstruct": _reconstruct}
