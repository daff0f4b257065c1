"""--mode=tokens: the codes of a whole data set, as a token set for a second stage."""

import pathlib
import shlex
import time
from collections.abc import Collection
from typing import NamedTuple

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from mq_jax.commandline import UsageError
from mq_jax.data.splits import HOLDOUTS
from mq_jax.devices.agreement import together
from mq_jax.devices.places import local_path
from mq_jax.modes.exporting import require_export
from mq_jax.terminal.console import image_progress
from mq_jax.terminal.streams import tell
from mq_jax.tokensets.making import Made, make_token_set
from mq_jax.tokensets.shards import Spec
from mq_jax.training.restored import move_to_this_machine
from mq_jax.training.taking import take_sizes
from mq_jax.training.validate import validate

# Fields that say where images are; how they are made, the tokenizer says.
_PLACE = ("source", "dir", "holdout", "image_column", "label_column")
_FIELDS = (*_PLACE, "max_pixels", "max_bytes", "max_bad_share", "threads")


class Asked(NamedTuple):
    """What the tokens are of, and where they go.

    Attributes:
      output: folder of the token set.
      images: a folder whose images are encoded; None: the data of the configuration.
      split: of the data; "": config.data.train_split, of a folder of images all.
      views: as tokensets.views.make_views takes them.
      shards: their number; 0: by the number of images.
      overwrite: whether a token set of something else may be replaced.
      beam: options of a Beam pipeline that makes the shards; None: this program does.
    """

    output: pathlib.Path
    images: pathlib.Path | None
    split: str
    views: str
    shards: int
    overwrite: bool
    beam: str | None


def asked_of(given: flags.FlagValues) -> Asked:
    """What a command line asks for.

    Args:
      given: the flags of mq_jax.main.

    Returns:
      An Asked.

    Raises:
      UsageError: --output is missing.
      ValueError: a place is none of this machine.
    """
    if not given.output:
        raise UsageError("--output is missing; give the folder of the token set.")
    images = local_path(given.images, "--images") if given.images else None
    others = {name: given[name].value for name in ("split", "views", "shards", "overwrite", "beam")}
    return Asked(local_path(given.output, "--output"), images, **others)


def run_tokens(
    folder: pathlib.Path, config: ConfigDict | None, asked: Asked, typed: Collection[str] = ()
) -> None:
    """Makes a token set; says what is in it and how fast it went.

    Args:
      folder: of a run, which is exported first where it has no export, or of an export.
      config: whose data is encoded; None: there is none, and --images names it.
      asked: what the tokens are of.
      typed: dotted names of the fields that a person gave.

    Raises:
      FileNotFoundError: there is no tokenizer, or no data.
      ValueError: what was asked for does not go together, or as make_token_set.
      OSError: something cannot be read or written.
    """
    with together():
        spec = _spec(folder, config, asked, typed)
    require_export(folder)
    started = time.monotonic()
    made = _made(spec, asked)
    if jax.process_index() == 0:
        _tell(asked.output, made, time.monotonic() - started)


def _spec(folder, config, asked: Asked, typed) -> Spec:
    """What the set is made of."""
    useless = [name for name in typed if name not in [f"data.{field}" for field in _FIELDS]]
    if useless:
        near = "; --split names the split" if useless[0].endswith("_split") else ""
        raise ValueError(
            f"--config.{useless[0]} changes nothing here{near}: of a configuration the data is "
            f"taken alone, {', '.join(_FIELDS)}, and images are made as the tokenizer says."
        )
    if config is None and asked.images is None:
        raise ValueError(
            f"{folder} has no config.json to take the data from; give an experiment, "
            "--config=configs/X.py, or a folder of images, --images=FOLDER."
        )
    shared = {"views": asked.views, "shards": asked.shards}
    if config is not None:
        take_sizes(config)
        move_to_this_machine(config)
        validate(config)
        limits = ("max_pixels", "max_bytes", "max_bad_share", "threads")
        shared |= {name: config.data[name] for name in limits}
    if asked.images is not None:
        given = [name for name in _PLACE if f"data.{name}" in typed]
        if given:
            raise ValueError(f"config.data.{given[0]} was given and --images; give one of them.")
        data = ("folder", str(asked.images), asked.split or "all", HOLDOUTS[0])
    else:
        data = config.data.source, config.data.dir, asked.split or config.data.train_split
        data = *data, config.data.holdout
        shared |= {name: config.data[name] for name in ("image_column", "label_column")}
    return Spec(str(folder), *data, **shared)


def _made(spec: Spec, asked: Asked) -> Made:
    """Makes the set, by this program or on Beam."""
    if asked.beam is None:
        with image_progress(live=jax.process_index() == 0) as progress:
            return make_token_set(spec, asked.output, overwrite=asked.overwrite, progress=progress)
    try:
        from mq_jax.tokensets.beam import make_token_set_on_beam
    except ModuleNotFoundError as error:
        raise ValueError(
            f'--beam asks for Apache Beam ({error}); install it: pip install "mq_jax[beam]".'
        ) from error
    if jax.process_count() > 1:
        raise ValueError("--beam starts workers of its own; run it in one process.")
    options = shlex.split(asked.beam)
    return make_token_set_on_beam(spec, asked.output, options, overwrite=asked.overwrite)


def _tell(output: pathlib.Path, made: Made, seconds: float) -> None:
    """What is in the set, and how it came to be."""
    manifest = made.manifest
    codes = " x ".join(map(str, manifest["shape"]))
    classes, views = len(manifest["class_names"]), len(manifest["views"])
    told = [
        f"{manifest['images']} images of {manifest['data']['source']} {manifest['data']['split']}",
        f"{views} view(s) of {codes} codes, K={manifest['codebook_size']}",
        f"{classes} classes" if classes else "no labels",
        f"{len(manifest['shards'])} shards, {sum(s['bytes'] for s in manifest['shards']):,} bytes",
    ]
    tell(f"{'; '.join(told)}, in {output}")
    if made.encoded:
        whose = "" if jax.process_count() == 1 else " by this process"
        rate = made.encoded / seconds
        tell(f"{made.encoded} images{whose} in {seconds:.1f} s, {rate:.1f} images/s")
    if made.kept:
        tell(f"{made.kept} were there already")
    bad = sum(len(shard["bad"]) for shard in manifest["shards"])
    if bad:
        logging.warning("%d unreadable images are left out; the manifest names them", bad)
    tell(f"Tokenizer: fingerprint {manifest['tokenizer']}")
