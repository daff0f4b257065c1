"""What numbers were measured on and how: the card without which two of them do not compare."""

import hashlib
import json
import math
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from mq_jax.data import inputs
from mq_jax.evaluation.evaluate import Evaluation
from mq_jax.metrics.measures import Measures
from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import ANY, NUMBER, TEXT, Each, Nullable, read_json, whole

FILE = "evaluation.json"

# Below the folder of a run: evaluations beside its own, a folder for each name.
FOLDER = "evaluations"

# The section of a card that moves the last digits of its numbers, not their meaning.
COMPUTATION = "computation"

# Counts up when the meaning of a number changes.
VERSION = 1

_SCHEMA = {
    "protocol": {
        "version": whole(0),
        "data": {
            "source": TEXT,
            "split": TEXT,
            "images": whole(0),
            "image_size": whole(0),
        },
        "measures": Each(ANY),
    },
    "metrics": Each(Nullable(NUMBER)),
    "run": {"step": whole(0)},
}


def protocol_card(
    config: ConfigDict, evaluation: Evaluation, measures: Measures, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """The protocol of an evaluation: equal cards mean that the numbers compare.

    One section, on precision and devices, may differ: it moves the last digits.

    Args:
      config: validated.
      evaluation: of these images.
      measures: that were measured.
      changes: of the run's data since it began, after which it may have seen these images.

    Returns:
      Nested, fit for JSON; without any path of a machine.
    """
    data = config.data
    return {
        "version": VERSION,
        "data": {
            "source": data.source,
            "split": data.eval_split,
            "images": evaluation.images,
            "pixels": evaluation.pixels,
            "image_size": inputs.evaluation_side(config),
            "crop": data.crop,
            "resize": data.filter if data.resize else "none",
            "crop_position": "centre",
            # Without, as on all cards of before the field.
            **({"icc": "to sRGB"} if data.icc else {}),
            # Absent where there are none, as in cards of before.
            **({"changes": list(changes)} if changes else {}),
        },
        "measures": {
            "mse": "mean over images, on [-1, 1], reconstructions not clipped",
            "psnr": "mean over images of 10 log10(4 / MSE), reconstructions clipped to [-1, 1]",
            "usage": "share of codes that occur in the whole set",
            "perplexity": "exp of the entropy of the codes of the whole set",
            **{name: _measure(name, card) for name, card in measures.card.items()},
        },
        COMPUTATION: _computation(config),
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """The sha256 of a configuration, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def write_evaluation(folder: pathlib.Path, card: Mapping[str, Any]) -> pathlib.Path:
    """Writes `evaluation.json`; one of another protocol or step is kept under another name.

    Args:
      folder: of the run.
      card: {"protocol": ..., "metrics": ..., "run": ...}.

    Returns:
      The path.
    """
    path = folder / FILE
    if path.exists() and _key(old := _readable(path)) != _key(card):
        digest = hashlib.sha256(_key(old).encode()).hexdigest()[:8] if old else "damaged"
        path.replace(folder / f"evaluation-{digest}.json")
    finite = {n: v if math.isfinite(v) else None for n, v in card["metrics"].items()}
    write_atomically(path, json.dumps({**card, "metrics": finite}, indent=2) + "\n")
    return path


def read_evaluation(path: str | os.PathLike) -> dict[str, Any]:
    """Reads an evaluation.

    Args:
      path: of the file, or of the folder of a run.

    Returns:
      {"protocol": ..., "metrics": ..., "run": ...}.

    Raises:
      FileNotFoundError: there is none; says how to make it.
      ValueError: the file is damaged.
    """
    path = pathlib.Path(path)
    # What is not there is taken for a folder, unless it is called like a file of ours.
    is_file = path.exists() or path.suffix == ".json"
    file = path if is_file and not path.is_dir() else path / FILE
    if not file.exists():
        folder, name = file.parent, ""
        if folder.parent.name == FOLDER:
            folder, name = folder.parent.parent, f" --name={shlex.quote(folder.name)}"
        raise FileNotFoundError(
            f"{file} does not exist; make it: python -m mq_jax.main --mode=evaluate "
            f"--workdir={shlex.quote(str(folder))}{name}"
        )
    try:
        return read_json(file, _SCHEMA)
    except ValueError as error:
        # Of a file that is called otherwise, it may be anything.
        ours = file.name.startswith(pathlib.Path(FILE).stem)
        remedy = "remove it and evaluate again" if ours else f"expected a run's folder or {FILE}"
        raise ValueError(f"{file} is no evaluation ({error}); {remedy}.") from error


def unlike(cards: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the protocols of evaluations differ.

    A measure that one of them lacks is no difference: it has no number to compare.

    Args:
      cards: at least two evaluations, by name.

    Returns:
      A phrase for each entry that is not equal in all, empty where the numbers compare.
    """
    return _differences(cards, lambda section: section != COMPUTATION)


def computed_unlike(cards: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where evaluations were computed in other precisions or on other devices.

    Their numbers compare all the same, but for the last digits.

    Args:
      cards: at least two evaluations, by name; of before, they say nothing of it.

    Returns:
      A phrase for each entry that is not equal in all.
    """
    return _differences(cards, lambda section: section == COMPUTATION)


def _differences(cards, asked):
    """A phrase for each entry, of the sections that are asked for, that is not equal in all."""
    protocols = {name: card["protocol"] for name, card in cards.items()}
    entries = {name: flatten_dict(protocol, sep=".") for name, protocol in protocols.items()}
    shared = set.intersection(*(set(p.get("measures", {})) for p in protocols.values()))
    found = []
    for key in sorted({key for own in entries.values() for key in own}):
        section, _, rest = key.partition(".")
        if not asked(section) or section == "measures" and rest.split(".")[0] not in shared:
            continue
        values = {name: own.get(key) for name, own in entries.items()}
        if len({json.dumps(value) for value in values.values()}) > 1:
            told = ", ".join(f"{value!r} in {name}" for name, value in values.items())
            found.append(f"{key} is {told}")
    return found


def _computation(config):
    """In which precision and on which devices."""
    return {
        "precision": {
            # The one kind of model that does not read the field.
            "model": "float32" if config.model.kind == "vqvae" else config.model.dtype,
            "products": jax.config.jax_default_matmul_precision or "JAX's default",
            "codebook, z, pixels and measures": "float32, highest",
            "deterministic": config.deterministic,
        },
        "device": computing_device(),
    }


def computing_device() -> dict[str, Any]:
    """The kind of the devices and their number, fit for JSON."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
    }


def _key(card):
    """What makes two evaluations one: protocol, wherever it was computed, and step."""
    if not card:
        return ""
    protocol = {name: part for name, part in card["protocol"].items() if name != COMPUTATION}
    return json.dumps([protocol, card["run"]["step"]], sort_keys=True)


def _readable(path):
    """The evaluation, or an empty one where the file is damaged."""
    try:
        return read_evaluation(path)
    except ValueError:
        return {}


def _measure(name, card):
    """A Fréchet distance has a reference set: that of the data section."""
    if name not in ("fid", "frechet_vgg"):
        return card
    return {**card, "reference": "the originals of this evaluation, 8 bits as the reconstructions"}
