"""Configurations and checkpoints of before: what they lack, and the values that stand for it."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

from mq_jax.runs.stages import is_prior

# Fields that configurations gained after the first runs, in the order in which they came.
ADDED: dict[str, Any] = {
    "data.holdout": "every-tenth",
    "data.icc": False,
    # Where Pillow refused an image.
    "data.max_pixels": 178_956_970,
    "data.max_bytes": 0,
    "deterministic": False,
    "codebook.base": "normal",
    "codebook.features": "encoder",
    "codebook.base_images": 2048,
    "codebook.base_file": "",
    "quantizer.kind": "vq",
    "quantizer.groups": 1,
    "quantizer.depth": 1,
    "quantizer.shared": False,
    "quantizer.dropout": 0.0,
    "quantizer.commitment": 1.0,
    "quantizer.codebook": 1.0,
    "quantizer.noise": 0.0,
    "quantizer.entropy": 0.0,
    "quantizer.wasserstein": 0.0,
    "quantizer.restart_every": 0,
    "quantizer.ema.commitment": 0.25,
    "quantizer.ema.decay": 0.99,
    "quantizer.ema.restart_below": 0.0,
    "quantizer.cvq.by": "closest",
    "quantizer.cvq.decay": 0.99,
    "quantizer.cvq.cosine": False,
    "quantizer.sqvae.variance": "I",
    "quantizer.sqvae.log_variance": 3.0,
    "quantizer.sqvae.rate": 1e-5,
    "quantizer.gumbel.kl_weight": 5e-4,
    "quantizer.gumbel.temperature": 1.0,
    "quantizer.gumbel.last_temperature": 1.0,
    "quantizer.gumbel.anneal_steps": 100_000,
    "quantizer.ibq.double": 1.0,
    "quantizer.ibq.commitment": 1.0,
    "quantizer.ibq.codebook_weight": 0.25,
    "quantizer.ibq.entropy_weight": 0.05,
    "quantizer.ibq.entropy_temperature": 0.01,
    "quantizer.ibq.scale": 1.0,
    "quantizer.fsq.levels": [8, 5, 5, 5],
    **{f"quantizer.{kind}.bits": 10 for kind in ("lfq", "bsq")},
    **{f"quantizer.{kind}.token_entropy": 0.1 for kind in ("lfq", "bsq")},
    **{f"quantizer.{kind}.batch_entropy": 0.1 for kind in ("lfq", "bsq")},
    "quantizer.lfq.commitment": 0.25,
    "quantizer.bsq.commitment": 0.0,
    "quantizer.lfq.temperature": 0.01,
    "quantizer.bsq.temperature": 1.0,
    "train.unroll": 1,
    "train.roll_back": False,
    # Read by kinds of hyper-gradient that came with them.
    "train.implicit_terms": 5,
    "train.implicit_damping": 0.01,
    "train.neumann_rate": 0.1,
    "train.outer_data": "other",
    "train.keep_activations": False,
    "init_from": "",
    # Read by sources that came with them.
    "data.image_column": "",
    "data.label_column": "",
    "model.middle_attention": True,
    "model.unit_pixels": False,
}

# Those of a prior.
ADDED_TO_PRIORS: dict[str, Any] = {"data.image_column": "", "data.label_column": ""}

# Fields that another one has taken the place of: its name, and its values by theirs.
REPLACED: dict[str, tuple[str, dict[Any, Any]]] = {
    "data.disjoint": ("train.outer_data", {False: "other", True: "held-out"}),
}

# Trees of arrays that checkpoints gained, by path, and those whose values they begin with.
ADDED_ARRAYS = {"state/ema/batch_stats": "state/batch_stats"}


def beginnings(stored: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """The arrays that a checkpoint lacks because it is older than they are.

    Args:
      stored: paths of the checkpoint's arrays.
      wanted: paths of the model's.

    Returns:
      Paths of stored arrays, whose values they begin with, by the paths that lack.
    """
    found = {}
    for tree, origin in ADDED_ARRAYS.items():
        # In their order, which is the same in every process.
        for name in wanted:
            begins_as = origin + name.removeprefix(tree)
            if name.startswith(f"{tree}/") and name not in stored and begins_as in stored:
                found[name] = begins_as
    return found


def lacking(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a stored configuration lacks because it is older than they are.

    Args:
      config: nested, as config.json has it.

    Returns:
      Values by dotted name; empty for a configuration of today.
    """
    replacing = {}
    for old, (name, values) in REPLACED.items():
        section, field = old.split(".")
        if _has(config, [section, field]):
            # What no such field could hold is for the rules of its successor to refuse.
            found = config[section][field]
            replacing[name] = values[found] if isinstance(found, bool) else found
    values = ADDED_TO_PRIORS if is_prior(config) else ADDED | replacing
    return {name: value for name, value in values.items() if not _has(config, name.split("."))}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the fields that it lacks.

    Args:
      config: nested, as config.json has it; not changed.

    Returns:
      A nested configuration.

    Raises:
      TypeError: what should be a section holds a value.
    """
    whole = copy.deepcopy(dict(config))
    for name, value in lacking(config).items():
        *sections, field = name.split(".")
        inner = whole
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise TypeError(f"{section} is no section of fields")
        inner[field] = value
    for old in REPLACED:
        section, field = old.split(".")
        if _has(whole, [section, field]):
            del whole[section][field]
    return whole


def _has(config: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(config, Mapping) or key not in config:
            return False
        config = config[key]
    return True
