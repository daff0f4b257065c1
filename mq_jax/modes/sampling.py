"""--mode=sample: images drawn from a trained prior, into a folder that an evaluation reads."""

import pathlib
import time
from typing import Any, NamedTuple

import jax
from absl import flags, logging

from mq_jax.commandline import UsageError
from mq_jax.devices.places import local_path
from mq_jax.generation.sampling import Sampling
from mq_jax.modes.taken import FIELDS
from mq_jax.samplers.export_reading import is_exported
from mq_jax.samplers.folder import ARCHIVE, GRID, IMAGES
from mq_jax.samplers.sampler import BATCH_SIZE, Sampler, load_prior
from mq_jax.samplers.writing import OF_MASKED, Draw, write_samples
from mq_jax.terminal.console import image_progress
from mq_jax.terminal.streams import tell

# Of the run's folder, where no other is named.
FOLDER = "samples"


class AskedDraw(NamedTuple):
    """What is drawn, and where it goes.

    Attributes:
      count: of images.
      classes: numbers divided by commas, "all", "none", or "" for all that there are.
      seed: of the draw.
      fields: of Sampling, those that were given.
      output: folder of the samples; None: in that of the run.
      batch_size: images at once; None: as Sampler.sample's.
      step: of the checkpoint; None: the best.
      tokenizer: where it lies; None: as the run says.
    """

    count: int
    classes: str
    seed: int
    fields: dict[str, Any]
    output: pathlib.Path | None
    batch_size: int
    step: int | None
    tokenizer: pathlib.Path | None


def asked_of(given: flags.FlagValues) -> AskedDraw:
    """What a command line asks for.

    Args:
      given: the flags of mq_jax.main.

    Returns:
      An AskedDraw.

    Raises:
      UsageError: --count is missing, or a flag does nothing beside the others.
      ValueError: a place is none of this machine, or a setting is out of its range.
    """
    if given.count is None:
        raise UsageError("--count is missing; give the number of images.")
    fields = {name: given[name].value for name in FIELDS if given[name].value is not None}
    sampling = Sampling(**fields)
    scheduled = [name for name in ("guidance_schedule", "guidance_power") if name in fields]
    if scheduled and sampling.guidance == 1:
        raise UsageError(f"--{scheduled[0]} does nothing without --guidance; give both.")
    if "guidance_power" in fields and sampling.guidance_schedule != "power-cosine":
        raise UsageError("--guidance_power is of --guidance_schedule=power-cosine; give both.")
    output, tokenizer = (
        local_path(given[name].value, f"--{name}") if given[name].value else None
        for name in ("output", "tokenizer")
    )
    batch_size = given.batch_size or BATCH_SIZE
    draw = given.count, given.classes, given.seed, fields
    return AskedDraw(*draw, output, batch_size, given.step, tokenizer)


def run_sampling(folder: pathlib.Path, asked: AskedDraw) -> None:
    """Draws images, or what is missing of them; says where they are and how fast it went.

    Args:
      folder: of the run of a prior, or of its export.
      asked: what is drawn.

    Raises:
      UsageError: nothing says where samples of an export go.
      FileNotFoundError: the run or its tokenizer is not there.
      ValueError: the run, the settings or the folder of the samples do not fit.
      OSError: something cannot be read or written.
    """
    if jax.process_count() > 1:
        raise ValueError("--mode=sample is of one process, on all its devices; start one.")
    if asked.output is None and is_exported(folder):
        # Which a later export replaces as a whole.
        raise UsageError(f"--output is missing; {folder} is an export, which holds no samples.")
    sampler = load_prior(folder, step=asked.step, tokenizer=asked.tokenizer)
    draw, output = _draw(sampler, asked), asked.output or folder / FOLDER
    logging.info("%r", sampler)
    started = time.monotonic()
    try:
        with image_progress() as progress:
            settings = {"batch_size": asked.batch_size, "progress": progress}
            drawn = write_samples(sampler, draw, output, **settings)
    except OSError as error:
        # Of a full disk, say, the system tells no path.
        if error.filename or not error.errno:
            raise
        raise OSError(f"{error} (writing to {output})") from error
    _tell(draw, output, drawn, time.monotonic() - started)


def _draw(sampler: Sampler, asked: AskedDraw) -> Draw:
    """What is drawn of this prior."""
    known = len(sampler.class_names)
    useless = [name for name in asked.fields if name in OF_MASKED and sampler.kind != "masked"]
    if useless:
        raise UsageError(
            f"--{useless[0]} is of masked priors; this one is {sampler.kind}, which draws one "
            "place after another: leave it out."
        )
    classes = _classes(asked.classes or ("all" if known else "none"), known)
    return Draw(asked.count, classes, asked.seed, Sampling(**asked.fields))


def _classes(text: str, known: int) -> tuple[int, ...]:
    """Numbers of classes as the command line has them."""
    if text == "none":
        return ()
    if not known:
        raise UsageError(f"--classes={text}, and the prior knows none; leave it out.")
    if text == "all":
        return tuple(range(known))
    words = text.split(",")
    if not all(word.isdecimal() and int(word) < known for word in words):
        raise UsageError(
            f"--classes={text}; expected numbers below {known} divided by commas, 0,3,5 say, all "
            "or none."
        )
    return tuple(map(int, words))


def _tell(draw: Draw, output: pathlib.Path, drawn: int, seconds: float) -> None:
    """Where the images are, and how fast they came."""
    kept = draw.count - drawn
    rate = f"{drawn / seconds:.1f} images/s, compiling included"
    parts = [f"{drawn} images drawn in {seconds:.1f} s, {rate}"] if drawn else []
    parts += [f"{kept} were there already"] if kept else []
    tell("; ".join(parts))
    tell(f"Images: {output / IMAGES}", f"As evaluators read them: {output / ARCHIVE}")
    tell(f"The first of them: {output / GRID}")
