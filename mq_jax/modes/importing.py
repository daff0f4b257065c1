"""--mode=import: the weights of others as a run of ours, before its first step."""

import dataclasses
import pathlib
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mq_jax.algorithm.state import Model
from mq_jax.commandline import UsageError
from mq_jax.devices.places import local_path
from mq_jax.devices.sharding import make_mesh
from mq_jax.peers.fields import fields_of
from mq_jax.peers.tokenizer import PeerTokenizer, read_peer
from mq_jax.peers.usage import USAGE
from mq_jax.runs import workdir
from mq_jax.runs.checkpoint import Checkpoints
from mq_jax.runs.provenance import Provenance, write_provenance
from mq_jax.runs.standing import Standing
from mq_jax.storage.joint_lock import held_together
from mq_jax.terminal.escaping import shell_word
from mq_jax.terminal.streams import tell
from mq_jax.tokenizers.imported import parameters_of, psi_of
from mq_jax.training.build import build
from mq_jax.training.lowering import checkpoint_target
from mq_jax.training.program import start
from mq_jax.training.train import monitored
from mq_jax.training.validate import validate

# Of a run whose file has a discriminator, taming's.
_ADVERSARIAL_WEIGHT = 0.8


def asked_of(given: Any) -> tuple[pathlib.Path, str]:
    """What a command line asks for.

    Args:
      given: the flags of mq_jax.main.

    Returns:
      (the file or the folder of a model, its format or "").

    Raises:
      UsageError: there is no file, or no such format.
      ValueError: the file is none of this machine.
    """
    source = given["from"].value
    if not source:
        raise UsageError("--from is missing; give the file that is to be imported.")
    if given.format not in ("", *USAGE):
        raise UsageError(
            f"--format={given.format} is no format; expected one of {', '.join(USAGE)}."
        )
    return local_path(source, "--from"), given.format


def run_import(
    source: pathlib.Path,
    format: str,
    config: ConfigDict,
    folder: pathlib.Path,
    typed: Collection[str] = (),
) -> None:
    """Makes the folder of a run whose only checkpoint, of step 0, holds the weights of a file.

    Args:
      source: the file, or the folder of a model.
      format: as read_peer's.
      config: the experiment, whose net and preparation of images become those of the file.
      folder: of the run; none is there yet.
      typed: dotted names of the fields that a person gave.

    Raises:
      ValueError: the file is no tokenizer, the folder is a run's, or the fields do not fit.
      OSError: something cannot be read or written.
    """
    if jax.process_count() > 1:
        raise ValueError("--mode=import is of one process; start the others on its folder then.")
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} is the folder of a run; give another --workdir.")
    peer = read_peer(source, format)
    _take_fields(config, peer, typed)
    if peer.patches is not None and "discriminator.weight" not in typed:
        config.discriminator.weight = _ADVERSARIAL_WEIGHT
    validate(config)
    workdir.require_writable(folder)
    with held_together(folder, "give another --workdir"):
        _write(folder, config, peer)
    _tell(folder, source, peer)


def _take_fields(config: ConfigDict, peer: PeerTokenizer, typed: Collection[str]) -> None:
    """Sets what the file decides; of the images' preparation, not what a person gave."""
    given = "data.image_size" in typed
    sections = fields_of(peer, config.data.image_size if given else 0)
    for section, fields in sections.items():
        for name, value in fields.items():
            if section == "data" and f"data.{name}" in typed:
                continue
            if f"{section}.{name}" in typed and config[section][name] != value:
                raise ValueError(
                    f"config.{section}.{name} is {config[section][name]!r}, and the file's is "
                    f"{value!r}; leave it out."
                )
            config[section][name] = value


def _write(folder: pathlib.Path, config: ConfigDict, peer: PeerTokenizer) -> None:
    """The checkpoint, and then what makes the folder that of a run."""
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    built = build(config, 1, mesh)
    arrays = start(config, built, mesh)
    target = checkpoint_target(config, built, mesh)["state"]
    arrays["state"] = _with_weights(arrays["state"], target, peer)
    with Checkpoints(folder / "checkpoints", monitor=monitored(config)) as saved:
        saved.save(0, arrays, dataclasses.asdict(Standing()), None)
    usage = peer.usage
    write_provenance(folder, Provenance(peer.format, peer.files, usage.published))
    # Last: what has it is a run.
    workdir.claim(folder, config.to_dict())


def _with_weights(state: Any, target: Any, peer: PeerTokenizer) -> Any:
    """A state with the file's parameters, on the devices where its own are."""
    theta, phi = (
        jax.tree.map(lambda own, place: jax.device_put(own, place.sharding), part, places)
        for part, places in zip(parameters_of(peer), target.params[:2], strict=True)
    )
    params = state.params._replace(autoencoder=theta, codebook=phi)
    if state.params.discriminator and peer.patches is not None:
        place = target.params.discriminator
        psi = jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), psi_of(peer), place)
        params = params._replace(discriminator=psi)
    state = state.replace(params=params)
    if not state.ema:
        return state
    # Arrays of their own: a step donates each once.
    own = jax.tree.map(jnp.copy, (theta, phi))
    return state.replace(ema=Model(*own, state.ema.batch_stats, state.ema.quantizer))


def _tell(folder: pathlib.Path, source: pathlib.Path, peer: PeerTokenizer) -> None:
    """What was taken in, what was not, and what to do with it."""
    net, side = peer.net, 2 ** (peer.net.levels - 1)
    tell(
        f"{source}: {peer.format}, {side} x {side} pixels a code, K = {peer.size:,}, "
        f"D = {net.dim}; {len(peer.arrays)} arrays are used once each",
    )
    if peer.left:
        tell(f"{peer.left} arrays of other networks, or of its training, are left out")
    tell(
        f"Its images, as published: {peer.usage.published}",
        f"Run: {folder}",
        "Evaluate it: python -m mq_jax.main --mode=evaluate "
        f"--workdir={shell_word(str(folder))} --images=IMAGES",
    )
