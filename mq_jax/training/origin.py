"""A run that begins with the weights of a trained model: which fit, and why the others do not."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mq_jax.devices.agreement import together
from mq_jax.quantizers.bases import started_from
from mq_jax.runs.origin import Origin, in_words, write_origin
from mq_jax.runs.trees import by_path
from mq_jax.runs.workdir import flat
from mq_jax.training.build import Built, make_autoencoder
from mq_jax.training.initial import init_model
from mq_jax.training.quantizing import UNTRAINED, are_codewords, starts_from_tables

# Of an auto-encoder's attributes those that change its ends alone, or how it computes.
_FREE = ("dim", "log_variances", "layer_norm", "init_std", "dtype", "remat", "parent", "name")

_FOLDED = ("codebook.size", "codebook.dim")
_FOLDED += tuple(f"quantizer.{name}" for name in ("kind", "groups", "depth", "shared"))
_CODEBOOK = (*_FOLDED, "codebook.kind", "codebook.embedding_dim", "codebook.hidden")
_DISCRIMINATOR = tuple(f"discriminator.{name}" for name in ("channels", "layers", "norm"))

# Whoever makes their codewords, z goes to the nearest.
_ALIKE = {"vq", "cvq", "ema"}


class Trained(NamedTuple):
    """A trained model, on the host.

    Attributes:
      config: its sections model, codebook, quantizer and data; of a run, all.
      step: of the checkpoint; None of an export.
      fingerprint: as its export has it.
      theta: parameters of the auto-encoder.
      batch_stats: running statistics of BatchNorm, of this theta; empty without.
      folded: what its quantizer folds to.
      codebook: (phi, what no gradient moves of the quantizer); None of an export.
      discriminator: (psi, anchors); None where there is none.
    """

    config: ConfigDict
    step: int | None
    fingerprint: str
    theta: Any
    batch_stats: Any
    folded: Any
    codebook: tuple[Any, Any] | None = None
    discriminator: tuple[Any, Any] | None = None


class Beginning:
    """Weights to begin with, given away once: a run of days need not hold a second model.

    Args:
      origin: where they are from.
      arrays: by path in what draw_model returns, in the place of the drawn ones.
    """

    def __init__(self, origin: Origin, arrays: Mapping[str, np.ndarray]):
        self.origin = origin
        self._arrays = dict(arrays)

    def give(self, folder: pathlib.Path) -> dict[str, np.ndarray]:
        """The arrays, once they are recorded in the folder; each process makes this call.

        Args:
          folder: of the run, claimed.

        Returns:
          Arrays by path in what draw_model returns.
        """
        with together():
            if jax.process_index() == 0:
                write_origin(folder, self.origin)
                logging.info("The run begins with %s", in_words(self.origin))
        arrays, self._arrays = self._arrays, None
        return arrays


def fit(config: ConfigDict, built: Built, trained: Trained) -> Beginning:
    """What of a trained model a run can begin with.

    The auto-encoder must have the same layers, but for those at z. All else is taken where it fits.

    Args:
      config: of the run, validated; init_from is the name of the model.
      built: of it.
      trained: the model.

    Returns:
      A Beginning.

    Raises:
      ValueError: the encoder does not fit; says in what.
    """
    _require_same_nets(config, trained)
    keys = [*jax.random.split(jax.random.key(0), 3)]
    shapes = jax.eval_shape(lambda: init_model(built.problem, config.data.image_size, keys))
    arrays, fresh = _autoencoder(trained, by_path(shapes))
    taken = ["encoder", "decoder"]
    for part, of_part in (("codebook", _codebook), ("discriminator", _discriminator)):
        found, lacking = of_part(config, trained, shapes)
        taken += [part] if found else []
        arrays, fresh = arrays | found, fresh | lacking
    origin = Origin(config.init_from, trained.step, trained.fingerprint, taken, fresh)
    return Beginning(origin, arrays)


def _require_same_nets(config, trained):
    """Raises where the layers of the auto-encoders are others, or compute otherwise."""
    own, other = make_autoencoder(config), make_autoencoder(trained.config)
    differing = [
        f"model.{field.name} is {getattr(other, field.name)} there, {getattr(own, field.name)} here"
        for field in dataclasses.fields(own)
        if field.name not in _FREE
        and type(own) is type(other)
        and getattr(own, field.name) != getattr(other, field.name)
    ]
    if type(own) is not type(other):
        differing = [_differing(config, trained.config, ("model.kind",))]
    if differing:
        raise ValueError(
            f"config.init_from is {config.init_from!r}, whose encoder does not fit: "
            f"{'; '.join(differing)}. Expected the same layers (attention by levels, as sides and "
            "data.image_size make them): give these fields, or another model."
        )


def _autoencoder(trained, here):
    """Arrays of both halves that are the same in both, and what is said of the others."""
    there = by_path({"params": {"autoencoder": trained.theta}, "batch_stats": trained.batch_stats})
    own = [name for name in here if name.startswith(("params/autoencoder/", "batch_stats/"))]
    fitting = {name: there[name] for name in own if name in there}
    fitting = {name: leaf for name, leaf in fitting.items() if leaf.shape == here[name].shape}
    fresh = {}
    for name in own:
        if name not in fitting:
            shape = list(there[name].shape) if name in there else "absent"
            told = f"{shape} there, {list(here[name].shape)} here"
            fresh[name.removeprefix("params/autoencoder/")] = told
    return fitting, fresh


def _codebook(config, trained, shapes):
    """Its parameters and counts, or the codewords where these are what a run has; and the rest."""
    params = _under("params/codebook", shapes["params"].codebook)
    counts = _under("quantizer", shapes["quantizer"])
    if not params and not counts:
        return {}, {}
    if starts_from_tables(config) and not _both_of_centres(config, trained.config):
        return {}, {"codebook": f"codebook.base is {config.codebook.base!r}"}
    if trained.codebook is not None and _maker(config) == _maker(trained.config):
        phi, fixed = trained.codebook
        learned, counted = _under("params/codebook", phi), _under("quantizer", fixed)
        # Of running means the counts are all there is.
        if _alike(learned, params) and (params or _alike(counted, counts)):
            if _alike(counted, counts):
                return learned | counted, {}
            return learned, {"counts of the quantizer": "it counted otherwise there"}
    if are_codewords(config) and _compared_alike(config, trained.config):
        found = _codewords(trained, shapes)
        if found:
            lacking = [name for name in (*params, *counts) if name not in found]
            return found, dict.fromkeys(lacking, "the codewords alone are taken")
    names = _FOLDED if trained.codebook is None else _CODEBOOK
    reason = _differing(config, trained.config, names) or (
        "an export has the codewords, not what makes them; codebook.kind=embedding takes them"
    )
    return {}, {"codebook": reason}


def _both_of_centres(config, other):
    """Whether k-means is what both began with, so that it is no wish for another codebook."""
    return config.codebook.base == other.codebook.base == "kmeans"


def _codewords(trained, shapes):
    """The codewords in the place of bases; nothing where there are others, or as many others."""
    tree = shapes["params"].codebook, shapes["quantizer"]
    try:
        phi, fixed = started_from(tree, jax.tree.leaves(trained.folded))
    except ValueError:
        return {}
    filled = _under("params/codebook", phi) | _under("quantizer", fixed)
    return {n: np.asarray(leaf) for n, leaf in filled.items() if isinstance(leaf, jax.Array)}


def _discriminator(config, trained, shapes):
    """Its parameters, with the averages of its outputs."""
    if not jax.tree.leaves(shapes["params"].discriminator):
        return {}, {}
    if trained.discriminator is None:
        return {}, {"discriminator": "there is none"}
    if reason := _differing(config, trained.config, _DISCRIMINATOR):
        return {}, {"discriminator": reason}
    psi, anchors = trained.discriminator
    return _under("params/discriminator", psi) | {"anchors": anchors}, {}


def _under(prefix, tree):
    """The leaves of a part, by the path that they have in what init_model returns."""
    return {f"{prefix}/{name}": leaf for name, leaf in by_path(tree).items()}


def _alike(arrays, wanted):
    """Whether arrays have the names and shapes of others."""
    return {n: leaf.shape for n, leaf in arrays.items()} == {n: w.shape for n, w in wanted.items()}


def _maker(config):
    """What makes codewords: the quantizer, and the net of those that have one."""
    kind = config.quantizer.kind
    return kind, "" if kind in UNTRAINED else config.codebook.kind


def _compared_alike(config, other):
    """Whether z is compared with codewords in the same way."""
    kinds = {config.quantizer.kind, other.quantizer.kind}
    return len(kinds) == 1 or kinds <= _ALIKE


def _differing(config: ConfigDict, other: ConfigDict, names: Sequence[str]) -> str:
    """Fields that are not equal, in words; "" where all are."""
    here, there = flat(config.to_dict()), flat(other.to_dict())
    return "; ".join(
        f"{name} is {there[name]!r} there, {here[name]!r} here"
        for name in names
        if there[name] != here[name]
    )
