"""Where an evaluation goes: to the run's own files, or into a folder of its own."""

import contextlib
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mq_jax.data.contents import Contents
from mq_jax.data.inputs import evaluation_side
from mq_jax.data.sources import IN_FOLDERS
from mq_jax.evaluation.evaluate import Evaluation
from mq_jax.evaluation.named import told
from mq_jax.evaluation.protocol import FILE, FOLDER, read_evaluation
from mq_jax.runs.listing import difference, read_recorded
from mq_jax.runs.snapshot import read_snapshot

# What decides which images an evaluation sees, and how it makes them, wherever they lie.
_FIELDS = (
    *("source", "eval_split", "holdout", "crop", "resize", "filter"),
    *("icc", "max_pixels", "max_bytes"),
)
_NAME = re.compile(r"\w[\w.+,=@-]*")
_MOST_CHARACTERS = 100


def require_name(name: str | None) -> None:
    """Raises unless a name can be that of a folder.

    Args:
      name: of an evaluation; None: it has none.

    Raises:
      ValueError: it is a path, hidden, too long, or holds what a file's name should not.
    """
    if name is not None and not (_NAME.fullmatch(name) and len(name) <= _MOST_CHARACTERS):
        raise ValueError(
            f"--name is {name!r}; expected up to {_MOST_CHARACTERS} letters, digits and any of "
            "_.+,=@- after the first: the name of a folder, no path."
        )


def is_own_data(
    folder: pathlib.Path, of_the_run: Mapping[str, Any], config: ConfigDict, contents: Contents
) -> bool:
    """Whether the images to be evaluated are those that the run evaluates itself.

    Args:
      folder: of the run.
      of_the_run: its configuration.
      config: of the evaluation.
      contents: of the source that it opened.

    Returns:
      True also where the run's folder of images has changed, and where it was moved as it was.

    Raises:
      ValueError: the record of the run's data is damaged.
    """
    stored = ConfigDict(of_the_run)
    if any(stored.data[name] != config.data[name] for name in _FIELDS):
        return False
    if evaluation_side(stored) != evaluation_side(config):
        return False
    if stored.data.dir == config.data.dir:
        return True
    recorded = read_recorded(folder)
    if recorded is None or "evaluation" not in recorded.splits:
        return False
    names = {"evaluation": list(contents.names)}
    return not difference(recorded, {"evaluation": contents.facts}, names)


def shows_others(folder: pathlib.Path, evaluation: Evaluation) -> bool:
    """Whether images of the names that a run knows are others than those that it has shown.

    Args:
      folder: of the run.
      evaluation: of images that lie elsewhere than the run's did.

    Returns:
      False also where the run has shown none.
    """
    with contextlib.suppress(OSError, ValueError):
        shown = read_snapshot(folder).originals
        # Of however many pictures, the first is that of the first image.
        if len(shown) and not np.array_equal(shown[:1], evaluation.originals[:1]):
            return True
    with contextlib.suppress(OSError, ValueError):
        found = read_evaluation(folder)
        return found["run"].get("own_data") is True and evaluation.pixels != (
            found["protocol"]["data"].get("pixels")
        )
    return False


def asked_for(config: ConfigDict, contents: Contents, step: int, *, own_data: bool) -> str:
    """The sha256 of what an evaluation is of, without what is measured.

    Args:
      config: of the evaluation.
      contents: of its source.
      step: of the checkpoint.
      own_data: as is_own_data has it; where other images lie counts, too.

    Returns:
      Hexadecimal digits.
    """
    fields = {name: config.data[name] for name in _FIELDS}
    place = "" if own_data else str(pathlib.Path(config.data.dir).expanduser().absolute())
    asked = [step, fields, evaluation_side(config), contents.digest, place]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def destination(
    folder: pathlib.Path, name: str | None, config: ConfigDict, run: Mapping[str, Any], best: bool
) -> pathlib.Path:
    """The folder that an evaluation leaves its files in.

    Args:
      folder: of the run.
      name: that was given; None: one is made of the data and the step, where it needs one.
      config: of the evaluation.
      run: {"step": ..., "own_data": ..., "asked": ...}, as its card will have it.
      best: whether the step is the one that is taken unasked.

    Returns:
      The run's own where the evaluation is of the run's own images and its best step.

    Raises:
      ValueError: the name is taken by an evaluation of something else, by a file or by a link.
    """
    if name is None and run["own_data"] and best:
        return folder
    place = folder / FOLDER / (name or _derived(config, run, best))
    for path in (place.parent, place):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise ValueError(
                f"{path} is no folder of its own, in which this evaluation would be left; move it "
                "away, or give another --name."
            )
    try:
        found = read_evaluation(place)
    # One that is damaged is set aside when the new one is written.
    except (OSError, ValueError):
        return place
    if found["run"].get("asked") != run["asked"]:
        raise ValueError(
            f"{place} holds an evaluation of something else ({told(found)}, step "
            f"{found['run']['step']}). Give another --name, or remove {place / FILE}."
        )
    return place


def _derived(config, run, best) -> str:
    """A name of the set, its split and side where they are others, and of the step."""
    parts = []
    if not run["own_data"]:
        source, _, set_name = config.data.source.partition(":")
        called = pathlib.Path(config.data.dir).name if source in IN_FOLDERS else set_name
        words = f"{called or source} {config.data.eval_split} {evaluation_side(config)}"
        # In ASCII, and short, whatever the folder is called.
        parts += [re.sub("[^A-Za-z0-9.]+", "-", words).strip("-.")[:60], run["asked"][:8]]
    return "-".join(parts + ([] if best else [f"step-{run['step']}"]))
