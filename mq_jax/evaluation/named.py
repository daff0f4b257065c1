"""Evaluations of a run beside its own: of other images, or of another step than the best."""

import pathlib
from typing import Any

from absl import logging

from mq_jax.data.contents import evaluated_images
from mq_jax.evaluation.protocol import FILE, FOLDER, read_evaluation
from mq_jax.runs.workdir import flat


def evaluations_beside(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The evaluations of a run that have names of their own.

    Args:
      folder: of the run.

    Returns:
      As read_evaluation's, by name, those that another protocol replaced included; a damaged one
      is left out with a warning.
    """
    named = sorted((folder / FOLDER).glob("*/evaluation*.json"))
    found = {}
    for path in [*named, *sorted(folder.glob("evaluation-*.json"))]:
        try:
            found[_name(path)] = read_evaluation(path)
        except (OSError, ValueError) as error:
            logging.warning("%s", error)
    return found


def is_of_the_run(card: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether an evaluation is one of the run's own images.

    Args:
      card: of the evaluation.
      config: of the run, by dotted name.

    Returns:
      What the card says; of one of before the set, the split and the side decide.
    """
    if "own_data" in card["run"]:
        return card["run"]["own_data"] is True
    side = config["data.eval_image_size"] or config["data.image_size"]
    own = config["data.source"], config["data.eval_split"], side
    data = card["protocol"]["data"]
    return own == (data["source"], data["split"], data["image_size"])


def told(card: dict[str, Any]) -> str:
    """What an evaluation is of, in a phrase."""
    data = card["protocol"]["data"]
    return evaluated_images(data["source"], data["split"], data["images"], data["image_size"])


def sampler(card: dict[str, Any]) -> dict[str, Any] | None:
    """The settings of a sampler, by dotted name.

    Args:
      card: of an evaluation.

    Returns:
      Empty where none are known of the generated images; None for an evaluation of other images.
    """
    generation, samples = card["run"].get("generation"), card["protocol"].get("samples")
    of_samples = isinstance(generation, dict) and isinstance(samples, dict)
    if not of_samples or not isinstance(samples.get("images"), int):
        return None
    settings = generation.get("settings")
    return flat(settings) if isinstance(settings, dict) else {}


def _name(path: pathlib.Path) -> str:
    """The folder's name, with the file's where it is not the usual one."""
    parts = [path.parent.name] if path.parent.parent.name == FOLDER else []
    return "/".join(parts + ([path.stem] if path.name != FILE else []))
