"""--mode=evaluate --samples: generated images against a data set, a folder or an archive."""

import json
import pathlib
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from mq_jax.commandline import UsageError
from mq_jax.devices.cache import cache_directory
from mq_jax.devices.environment import environment
from mq_jax.devices.places import local_path
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.generation import SampleEvaluation, evaluate_samples
from mq_jax.evaluation.image_sets import DataImages, ImageSet, open_image_set
from mq_jax.evaluation.named import told
from mq_jax.evaluation.protocol import config_hash, write_evaluation
from mq_jax.metrics.spaces import Space, load_spaces, measurable
from mq_jax.modes.table import evaluation_table
from mq_jax.samplers.folder import IMAGES, SETTINGS
from mq_jax.storage.schema import ANY, Each, read_json
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell
from mq_jax.training.restored import move_to_this_machine
from mq_jax.training.taking import take_sizes
from mq_jax.training.validate import validate

# Fields that say which images the reference is of, and how they are made.
_SECTIONS = ("data", "eval", "perceptual")
_BATCH_SIZE = 64


class AskedSamples(NamedTuple):
    """What is measured, against what, and where the numbers go.

    Attributes:
      samples: an .npz file with `arr_0`, or a folder of images.
      reference: as samples; None: the data of the configuration.
      split: of that data; "": config.data.train_split.
      output: a folder; None: that of the samples, of an archive the one of its name.
    """

    samples: pathlib.Path
    reference: pathlib.Path | None
    split: str
    output: pathlib.Path | None


def asked_of(given: Any) -> AskedSamples:
    """What a command line asks for.

    Args:
      given: the flags of mq_jax.main.

    Returns:
      An AskedSamples.

    Raises:
      UsageError: two flags do not go together.
      ValueError: a place is none of this machine.
    """
    if given.reference and given.split:
        raise UsageError("--split is of the configuration's data, not of --reference; give one.")
    reference, output = (
        local_path(given[name].value, f"--{name}") if given[name].value else None
        for name in ("reference", "output")
    )
    return AskedSamples(local_path(given.samples, "--samples"), reference, given.split, output)


def run_sample_evaluation(
    config: ConfigDict | None,
    asked: AskedSamples,
    *,
    metrics: str,
    weights_dir: str,
    typed: Collection[str] = (),
) -> None:
    """Measures generated images; leaves evaluation.json with a generation card.

    Args:
      config: whose data is the reference, unless another is asked for.
      asked: what is measured, against what.
      metrics: names from spaces.NAMES, divided by commas; "all": what can be measured here.
      weights_dir: of the Inception weights; "": the cache of this program.
      typed: dotted names of the fields that a person gave.

    Raises:
      FileNotFoundError: the images or weights are not there.
      ValueError: the sets, the configuration or the names do not fit.
      OSError: something cannot be read or written.
    """
    if jax.process_count() > 1:
        raise ValueError("--samples is measured by one process, on all its devices; start one.")
    samples = open_image_set(_images(asked.samples))
    settings = _settings(asked.samples, samples.count)
    reference = _reference(config, asked, samples.side, typed)
    lpips_dir = "" if config is None else config.perceptual.dir
    spaces, names = _spaces(metrics, lpips_dir, weights_dir)
    cache, started = cache_directory(), time.monotonic()
    bar = console.ImageBar((samples.count + reference.count) * len(spaces))
    try:
        found = evaluate_samples(
            samples,
            reference,
            spaces,
            make_mesh(),
            names=names,
            batch_size=config.eval.batch_size if config is not None else _BATCH_SIZE,
            directory=None if cache is None else cache / "references",
            progress=bar.advance,
        )
    finally:
        bar.close()
    seconds = round(time.monotonic() - started, 2)
    run = {"step": _step(settings), "generation": _card(settings, found), "seconds": seconds}
    if config is not None:
        run["config"] = config_hash(config.to_dict())
    card = {"protocol": found.protocol, "metrics": found.metrics, "run": run | environment()}
    _leave(_folder(asked), card, spaces)


def _reference(config, asked: AskedSamples, side: int, typed) -> ImageSet:
    """The reference of samples of this side."""
    if asked.reference is not None:
        wanted = [name for name in typed if name.startswith("data.")]
        if wanted:
            raise ValueError(
                f"config.{wanted[0]} was given and --reference, which takes images as they are; "
                "give one of them."
            )
        return open_image_set(asked.reference)
    if config is None:
        raise ValueError(
            "--samples has nothing to be measured against: give an experiment whose data is the "
            "reference, --config=configs/X.py, or images as they are, --reference=FILE_OR_FOLDER."
        )
    if "data.eval_split" in typed:
        raise ValueError("--config.data.eval_split changes nothing here; --split names the split.")
    useless = [name for name in typed if name.partition(".")[0] not in _SECTIONS]
    if useless:
        raise ValueError(
            f"--config.{useless[0]} changes nothing here: of a configuration the data is taken "
            f"alone, {', '.join(_SECTIONS)}."
        )
    take_sizes(config)
    move_to_this_machine(config)
    config.data.eval_split = asked.split or config.data.train_split
    if side == config.data.image_size and "data.eval_image_size" not in typed:
        # Of the side that was trained on, which need not be that of the evaluation.
        config.data.eval_image_size = side
    validate(config)
    return DataImages(config)


def _spaces(metrics: str, lpips_dir: str, weights_dir: str) -> tuple[tuple[Space, ...], list[str]]:
    """What was asked for, or the best that there are weights for."""
    names = [name for name in metrics.split(",") if name]
    if metrics == "all":
        best, instead = measurable(weights_dir)
        names = list(best)
        if instead:
            logging.info("%s", instead)
    return load_spaces(names, lpips_dir=lpips_dir, weights_dir=weights_dir), names


def _images(place: pathlib.Path) -> pathlib.Path:
    """Where the images are; a folder that --mode=sample wrote has other files beside them."""
    return place / IMAGES if (place / SETTINGS).is_file() and (place / IMAGES).is_dir() else place


def _settings(place: pathlib.Path, count: int) -> dict[str, Any] | None:
    """The sampler's settings, where they lie beside the images."""
    path = (place if place.is_dir() else place.parent) / SETTINGS
    try:
        settings = read_json(path, Each(ANY))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); mend it, or remove it.") from error
    told_count = settings.get("count")
    if type(told_count) is int and told_count != count:
        raise ValueError(
            f"{path} tells of {told_count} images, and {place} has {count}: finish the sampling, "
            f"or remove {SETTINGS} where it is of other images."
        )
    return settings


def _step(settings: Mapping[str, Any] | None) -> int:
    """The step of the model that the images are of, 0 where it is not known."""
    step = (settings or {}).get("step")
    return step if type(step) is int and step >= 0 else 0


def _card(settings, found: SampleEvaluation) -> dict[str, Any]:
    """What the images are, and what they were measured against."""
    return {
        "settings": settings,
        "seed": (settings or {}).get("seed"),
        "count": found.images,
        "pixels": found.pixels,
        "reference": told({"protocol": found.protocol}),
    }


def _folder(asked: AskedSamples) -> pathlib.Path:
    """Where the numbers go."""
    if asked.output is not None:
        return asked.output
    return asked.samples if asked.samples.is_dir() else asked.samples.with_suffix("")


def _leave(folder: pathlib.Path, card: Mapping[str, Any], spaces: tuple[Space, ...]) -> None:
    """Writes the file; then, or if it cannot be written, prints the table."""
    images, path = card["protocol"]["samples"]["images"], None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = write_evaluation(folder, json.loads(json.dumps(card)))
    finally:
        title = f"{images:,} samples against {card['run']['generation']['reference']}"
        rows = {folder.absolute().name: card["metrics"]}
        console.print_table(title, *evaluation_table(rows, prefix=""))
        dims = [dim for space in spaces for dim in (space.dim, space.spatial_dim) if images <= dim]
        if dims:
            tell(
                f"A Fréchet distance is of {images} samples in {min(dims)} dimensions: biased "
                "upwards by their small number; compare it at equal numbers alone."
            )
    tell(f"Protocol, sampler and numbers: {path}")
