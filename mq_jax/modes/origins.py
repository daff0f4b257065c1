"""The model that a new run begins with: a run's best checkpoint, or an export, read whole."""

import pathlib

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mq_jax.devices import sharding
from mq_jax.devices.agreement import together
from mq_jax.devices.places import local_path
from mq_jax.modes.unchanged import trained_steps
from mq_jax.runs.origin import read_origin
from mq_jax.runs.stages import is_prior
from mq_jax.runs.workdir import read_config
from mq_jax.tokenizers.architecture import config_of
from mq_jax.tokenizers.export import Export, make_export
from mq_jax.tokenizers.export_reading import read_export
from mq_jax.training.build import build
from mq_jax.training.origin import Beginning, Trained, fit
from mq_jax.training.restored import Restored, move_to_this_machine, restore
from mq_jax.training.validate import validate


def beginning_of(config: ConfigDict, folder: pathlib.Path) -> Beginning | None:
    """What a run begins with; each process of it makes this call.

    Args:
      config: of the run, validated.
      folder: of the run, or of none yet.

    Returns:
      A Beginning; None where the run begins by itself, or has begun.

    Raises:
      FileNotFoundError: there is no model.
      ValueError: it is damaged or does not fit, or the run has begun by itself.
    """
    with together():
        if not config.init_from:
            return None
        if trained_steps(folder):
            _require_origin(config, folder)
            return None
        place = local_path(config.init_from, "config.init_from")
        of_run = _is_run(place, config.init_from)
    trained = _of_run(place, config.init_from) if of_run else _of_export(place)
    with together():
        return fit(config, build(config, 1), trained)


def _require_origin(config, folder):
    """Raises where a run has begun by itself; says what it began with where another is named."""
    origin = read_origin(folder)
    if origin is None:
        raise ValueError(
            f"config.init_from is {config.init_from!r}, but the run in {folder} has begun without "
            "it, and weights are taken before the first step alone. Give another --workdir."
        )
    if origin.source != config.init_from and jax.process_index() == 0:
        told = "config.init_from changes nothing any more: the run began with the weights of %s"
        logging.info(told, origin.source)


def _is_run(place: pathlib.Path, given: str) -> bool:
    """Whether there are checkpoints; else there must be an export."""
    if not place.exists():
        raise FileNotFoundError(f"config.init_from is {given!r}, which does not exist.")
    if not trained_steps(place):
        return False
    if is_prior(read_config(place)):
        raise ValueError(
            f"config.init_from is {given!r}, a prior; expected the folder of a tokenizer."
        )
    return True


def _of_run(place: pathlib.Path, given: str) -> Trained:
    """The model of a run's best checkpoint, as evaluation takes it."""
    with together():
        config = ConfigDict(read_config(place))
        move_to_this_machine(config)
        validate(config)
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
    try:
        restored = restore(place, config, mesh)
    except ValueError as error:
        raise ValueError(
            f"config.init_from is {given!r}, whose best checkpoint cannot be read: {error} To "
            "begin with another step, export it and give the export."
        ) from error
    return _trained(config, restored, mesh)


def _trained(config: ConfigDict, restored: Restored, mesh) -> Trained:
    """On the host of each process, whoever holds which share of it."""

    def on_host(tree):
        whole = jax.jit(lambda leaves: leaves, out_shardings=sharding.replicated(mesh))(tree)
        return jax.tree.map(np.asarray, whole)

    state, objective = restored.state, restored.built.objective
    model = on_host(state.evaluated)
    export = make_export(config, objective, state.replace(ema=model))
    psi = state.params.discriminator
    return Trained(
        config,
        restored.step,
        export.fingerprint,
        model.autoencoder,
        model.batch_stats,
        export.weights.codebook,
        (model.codebook, model.quantizer),
        on_host((psi, state.anchors)) if jax.tree.leaves(psi) else None,
    )


def _of_export(place: pathlib.Path) -> Trained:
    """The model of an export."""
    with together():
        export: Export = read_export(place)
    theta, batch_stats, folded = export.weights
    config = config_of(export.architecture)
    return Trained(config, None, export.fingerprint, theta, batch_stats, folded)
