"""--mode=train of a prior: its tokens, made first where they are not there, then its training."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

from mq_jax.data.contents import Contents
from mq_jax.data.inputs import require_divisible
from mq_jax.devices.agreement import together
from mq_jax.devices.places import local_path
from mq_jax.devices.sharding import make_mesh
from mq_jax.modes.claiming import claimed
from mq_jax.modes.exporting import require_export
from mq_jax.modes.training import sum_up
from mq_jax.modes.unchanged import require_alike
from mq_jax.priors.build import steps_of
from mq_jax.priors.facts import write_facts
from mq_jax.priors.fields import validate
from mq_jax.priors.spaces import facts_of, space_of
from mq_jax.priors.state import MONITOR
from mq_jax.priors.train import train_prior
from mq_jax.terminal.console import image_progress
from mq_jax.tokensets.making import make_token_set
from mq_jax.tokensets.manifest import is_token_set
from mq_jax.tokensets.reading import TokenSet, open_tokens
from mq_jax.tokensets.shards import Spec


class _Places(NamedTuple):
    """Where the tokens of both uses lie, and what they are made of where they are not there yet."""

    train: pathlib.Path
    validation: pathlib.Path
    specs: Mapping[pathlib.Path, Spec]


def run_prior_training(
    config: ConfigDict, folder: pathlib.Path, *, accept_changed_data: bool
) -> str:
    """Trains a prior, or goes on with one; ends with its table and its report.

    Args:
      config: the experiment.
      folder: of the run.
      accept_changed_data: whether a run may go on with other tokens than it began with.

    Returns:
      "finished", "stopped early" or the name of a signal.

    Raises:
      FileNotFoundError: there are neither tokens nor a tokenizer, or no data.
      ValueError: the configuration, the tokens or the folder do not fit, or another process
        writes into it.
      OSError: something cannot be read or written.
      FloatingPointError: the training went wrong.
    """
    with together():
        validate(config)
        make_mesh(config.mesh.data, config.mesh.fsdp)  # Raises where the devices make no such mesh.
        require_divisible(config, jax.device_count())
        places = _places(config, folder)
        if not places.specs:
            # Before anything is written; what is made first cannot be looked at.
            _opened(config, places)
    if places.specs:
        require_export(local_path(config.tokens, "config.tokens"))

    def contents():
        for place, spec in places.specs.items():
            _make(place, spec)
        with together():
            space, *sets = _opened(config, places)
        found = dict(zip(("train", "validation"), map(_contents, sets), strict=True))
        require_alike(found)
        opened.update(space=space, tokens=sets[0], eval_tokens=sets[1])
        return found

    opened = {}
    with claimed(config, folder, contents, accept=accept_changed_data):
        with together():
            steps = steps_of(config, len(opened["tokens"]))
            if jax.process_index() == 0:
                write_facts(folder, facts_of(opened["space"], opened["tokens"]))
        ended = train_prior(config, steps, **opened, workdir=folder)
        sum_up(folder, ended, MONITOR)
    return ended


def _places(config: ConfigDict, folder: pathlib.Path) -> _Places:
    """Those of token sets that are given, or of such that are made in the workdir."""
    if not config.tokens:
        raise ValueError(
            "config.tokens is empty; give the folder of a token set, which --mode=tokens makes, or "
            "of a tokenizer, a run's or an export's: --config.tokens=FOLDER."
        )
    given = {name: config[name] for name in ("tokens", "eval_tokens") if config[name]}
    paths = {name: local_path(path, f"config.{name}") for name, path in given.items()}
    if not paths["tokens"].exists():
        raise FileNotFoundError(f"config.tokens is {config.tokens}, which does not exist.")
    if is_token_set(paths["tokens"]):
        if "eval_tokens" not in paths:
            raise ValueError(
                "config.eval_tokens is empty and config.tokens is a token set; give the set of a "
                "split that is held out."
            )
        return _Places(paths["tokens"], paths["eval_tokens"], {})
    data, made = config.data, folder / "tokens"
    names = ("image_column", "label_column", "max_pixels", "max_bytes", "max_bad_share", "threads")
    others = {name: data[name] for name in names}

    def spec(split, views):
        source = data.source, data.dir, split, data.holdout
        return Spec(str(paths["tokens"]), *source, views=views, **others)

    specs = {made / "train": spec(data.train_split, data.views)}
    if "eval_tokens" not in paths:
        specs[made / "validation"] = spec(data.eval_split, "center")
    return _Places(made / "train", paths.get("eval_tokens", made / "validation"), specs)


def _make(place: pathlib.Path, spec: Spec) -> None:
    """Makes a token set, or what is missing of it."""
    if jax.process_index() == 0:
        logging.info("Tokens: those of %s %s go to %s", spec.source, spec.split, place)
    with image_progress(live=jax.process_index() == 0) as progress:
        make_token_set(spec, place, progress=progress)


def _opened(config: ConfigDict, places: _Places) -> tuple:
    """(space, tokens to train on, tokens that validate), which fit each other."""
    tokens, eval_tokens = open_tokens(places.train), open_tokens(places.validation)
    if config.train.view:
        tokens.number(config.train.view)
    return space_of(config, tokens, eval_tokens), tokens, eval_tokens


def _contents(tokens: TokenSet) -> Contents:
    """A set as the record of a run's data has it."""
    source, split = tokens.split
    return Contents("tokens", f"tokens of {source} {split}", len(tokens), (tokens.digest,))
