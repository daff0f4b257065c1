"""--mode=evaluate --compare: evaluations side by side, below what tells their runs apart."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mq_jax.devices.places import local_path
from mq_jax.evaluation.named import sampler
from mq_jax.evaluation.protocol import FOLDER, computed_unlike, read_evaluation, unlike
from mq_jax.modes.table import evaluation_table
from mq_jax.runs.differing import differing_fields, shown
from mq_jax.runs.workdir import flat, read_config
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell


def compare_evaluations(paths: Sequence[str], *, unlike_too: bool) -> None:
    """Prints evaluations side by side, if they were made under one protocol.

    Args:
      paths: folders of runs, folders DIR/evaluations/NAME of named evaluations, or evaluation
        files; at least two.
      unlike_too: whether to show numbers that do not compare, too.

    Raises:
      FileNotFoundError: one of them has no evaluation.
      ValueError: the protocols differ; says where.
    """
    places = {path: local_path(path, "--compare") for path in paths}
    if len({place.resolve() for place in places.values()}) < max(len(paths), 2):
        raise ValueError(
            f"--compare got {', '.join(paths) or 'no run'}; expected two or more runs."
        )
    cards = {path: read_evaluation(place) for path, place in places.items()}
    differing = unlike(cards)
    if differing and not unlike_too:
        raise ValueError(
            f"The protocols differ, so the numbers do not compare: {'; '.join(differing)}. "
            "Evaluate under one protocol, or show them all the same: --unlike."
        )
    names = _names(places)
    samplers = {names[path]: sampler(card) for path, card in cards.items()}
    if None in samplers.values():
        _print_fields({names[path]: place for path, place in places.items()})
    else:
        _print_differing("Sampler settings that differ", samplers)
    rows = {_titled(names[path], card): card["metrics"] for path, card in cards.items()}
    console.print_table("Evaluations", *evaluation_table(rows, prefix=""))
    for difference in differing:
        tell(f"Unlike: {difference}")
    for difference in computed_unlike(cards):
        tell(f"Computed differently, which moves the last digits: {difference}")
    versions = {json.dumps(card["run"].get("packages"), sort_keys=True) for card in cards.values()}
    if len(versions) > 1:
        tell("Measured with different versions of packages; the files tell.")


def _names(places: Mapping[str, pathlib.Path]) -> dict[str, str]:
    """What evaluations are called: RUN, RUN/NAME, or the whole path where that is not unique."""
    names = {path: _name(place.absolute()) for path, place in places.items()}
    unique = len(set(names.values())) == len(names)
    return names if unique else {path: path for path in places}


def _name(place: pathlib.Path) -> str:
    if place.parent.name == FOLDER:
        return f"{place.parent.parent.name}/{place.name}"
    return place.name


def _print_fields(places: Mapping[str, pathlib.Path]) -> None:
    """The fields in which the runs differ, a column each; who has no configuration is named."""
    configs = {name: _config(place) for name, place in places.items()}
    known = {name: config for name, config in configs.items() if config is not None}
    if not _print_differing("Fields that differ", known) and len(known) > 1:
        tell("The runs differ in no field of their configurations.")
    for name in sorted(set(configs) - set(known)):
        tell(f"{name} lies in no run's folder: in which fields it differs is not known.")


def _print_differing(title: str, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """What is not equal in all, a column each; whether there is any."""
    fields = differing_fields(known)
    if fields:
        rows = [[field, *map(shown, values)] for field, values in fields.items()]
        console.print_table(title, ["", *known], rows)
    return bool(fields)


def _titled(name: str, card: Mapping[str, Any]) -> str:
    """A row's title: of generated images their number, of reconstructions the step."""
    if sampler(card) is None:
        return f"{name}, step {card['run']['step']}"
    return f"{name}, {card['protocol']['samples']['images']} samples"


def _config(place: pathlib.Path) -> dict[str, Any] | None:
    """The configuration of the run that an evaluation lies in."""
    folder = place if place.is_dir() else place.absolute().parent
    for candidate in (folder, folder.absolute().parent.parent):
        if (candidate / "config.json").is_file():
            return flat(read_config(candidate))
    return None
