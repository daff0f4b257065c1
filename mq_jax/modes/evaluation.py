"""--mode=evaluate: the best checkpoint of a run on a whole set, and evaluations side by side."""

import json
import pathlib
import time
from collections.abc import Collection, Sequence

import jax
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from mq_jax.data import inputs
from mq_jax.devices.agreement import together
from mq_jax.devices.environment import environment
from mq_jax.devices.places import local_path
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.evaluate import Evaluation, Evaluator
from mq_jax.evaluation.protocol import (
    computed_unlike,
    config_hash,
    protocol_card,
    read_evaluation,
    unlike,
    write_evaluation,
)
from mq_jax.images.scale import comparison
from mq_jax.metrics.measures import Measures, check_names, every_measure, load_measures
from mq_jax.modes.older import take_over
from mq_jax.modes.restored import Restored, move_to_this_machine, restore
from mq_jax.modes.table import evaluation_table
from mq_jax.modes.unchanged import changes_since, tell_data
from mq_jax.runs import workdir
from mq_jax.runs.snapshot import write_snapshot
from mq_jax.storage.files import replacing
from mq_jax.storage.joint_lock import held_together
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell
from mq_jax.training.validate import validate

# An evaluation needs the model of the run; it may look at other images.
FREE_FIELDS = (
    *("seed", "train", "inner", "outer", "disc", "mesh", "data", "eval"),
    *("perceptual.dir", "codebook.shard_lookup", "deterministic"),
)


def run_evaluation(
    folder: pathlib.Path,
    given: ConfigDict | None,
    *,
    metrics: str,
    weights_dir: str,
    step: int | None = None,
    typed: Collection[str] = (),
) -> None:
    """Evaluates a checkpoint of a run; leaves evaluation.json and evaluation.png.

    Args:
      folder: of the run.
      given: a configuration of the same model with other data; None for the run's own.
      metrics: names from measures.NAMES, divided by commas; "all": what can be measured here.
      weights_dir: of the Inception weights; "": the cache of this program.
      step: of the checkpoint; None: the best.
      typed: dotted names of the fields that a person gave.

    Raises:
      ValueError: the configuration, the data or the checkpoint do not fit, or another process
        writes into the folder.
      OSError: something cannot be read or written.
    """
    with together():
        of_the_run = workdir.read_config(folder)
        config = stored = ConfigDict(of_the_run)
        if given is not None:
            config = given
            # A run of before held out other images, which alone it was not trained on.
            take_over(config, folder, typed)
            workdir.claim(folder, config.to_dict(), FREE_FIELDS)
        else:
            move_to_this_machine(config)
        validate(config)
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
        source = inputs.open_evaluation(config)
        measures = _measures(config, metrics, weights_dir)
        changes = _changes(folder, of_the_run, config, source)
        # What may differ from the run: where it computes.
        stored.mesh, stored.codebook.shard_lookup = config.mesh, config.codebook.shard_lookup
    with held_together(folder, "evaluate later"):
        restored = restore(folder, stored, mesh, step)
        evaluator = Evaluator(config, restored.built.objective, source, mesh, measures)
        evaluation, seconds = _evaluated(evaluator, restored, len(source))
        if jax.process_index() == 0:
            run = {"step": restored.step, "config": config_hash(of_the_run), "seconds": seconds}
            card = {
                "protocol": protocol_card(config, evaluation, measures, changes),
                "metrics": {n.removeprefix("eval/"): v for n, v in evaluation.scalars.items()},
                "run": {**run, **environment()},
            }
            _leave(folder, config, evaluation, measures, card)


def _evaluated(evaluator: Evaluator, restored: Restored, images: int) -> tuple[Evaluation, float]:
    """The evaluation, with a live line on the way, and the seconds it took."""
    started = time.monotonic()
    own = -(-images // jax.process_count())
    bar = console.ImageBar(own, live=jax.process_index() == 0)
    evaluation = evaluator.run(restored.state, bar.advance)
    bar.close()
    return evaluation, round(time.monotonic() - started, 2)


def compare_evaluations(paths: Sequence[str], *, unlike_too: bool) -> None:
    """Prints evaluations side by side, if they were made under one protocol.

    Args:
      paths: folders of runs, or evaluation files; at least two.
      unlike_too: whether to show numbers that do not compare, too.

    Raises:
      FileNotFoundError: one of them has no evaluation.
      ValueError: the protocols differ; says where.
    """
    if len(set(paths)) < max(len(paths), 2):
        raise ValueError(
            f"--compare got {', '.join(paths) or 'no run'}; expected two or more runs."
        )
    cards = {path: read_evaluation(local_path(path, "--compare")) for path in paths}
    differing = unlike(cards)
    if differing and not unlike_too:
        raise ValueError(
            f"The protocols differ, so the numbers do not compare: {'; '.join(differing)}. "
            "Evaluate under one protocol, or show them all the same: --unlike."
        )
    names = [pathlib.Path(path).name for path in cards]
    unique = len(set(names)) == len(names)
    rows = {
        f"{name if unique else path}, step {card['run']['step']}": card["metrics"]
        for name, (path, card) in zip(names, cards.items(), strict=True)
    }
    console.print_table("Evaluations", *evaluation_table(rows, prefix=""))
    for difference in differing:
        tell(f"Unlike: {difference}")
    for difference in computed_unlike(cards):
        tell(f"Computed differently, which moves the last digits: {difference}")
    versions = {json.dumps(card["run"]["packages"], sort_keys=True) for card in cards.values()}
    if len(versions) > 1:
        tell("Measured with different versions of packages; the files tell.")


def _measures(config: ConfigDict, metrics: str, weights_dir: str) -> Measures:
    """What was asked for, or all there is, with a line for what is not."""
    names = [name for name in metrics.split(",") if name]
    if metrics == "all":
        names, left_out = every_measure(inputs.evaluation_side(config), weights_dir)
        for sentence in left_out if jax.process_index() == 0 else ():
            logging.info("%s", sentence)
    else:
        check_names(names)
    return load_measures(names, lpips_dir=config.perceptual.dir, weights_dir=weights_dir)


def _changes(folder, of_the_run, config, source) -> list[str]:
    """What has changed of the run's data; its evaluation images only where these are theirs."""
    contents, data = {"evaluation": source.contents()}, of_the_run["data"]
    tell_data(contents)
    own = all(data[name] == config.data[name] for name in ("source", "eval_split", "holdout"))
    changes = changes_since(folder, contents if own else {})
    for change in changes if jax.process_index() == 0 else ():
        logging.warning("The data of this run changed %s", change)
    return changes


def _leave(folder, config, evaluation: Evaluation, measures: Measures, card):
    """Writes the files; then, or if one cannot be written, prints the table."""
    try:
        protocol = write_evaluation(folder, card)
        write_snapshot(folder, evaluation.snapshot(card["run"]["step"]))
        path = folder / "evaluation.png"
        shown = Image.fromarray(comparison(evaluation.originals, evaluation.reconstructions))
        with replacing(path) as temporary:
            shown.save(temporary, format="png")
    finally:
        _print_evaluation(config, evaluation, measures, card)
    tell(f"Protocol and numbers: {protocol}", f"Originals over reconstructions: {path}")


def _print_evaluation(config, evaluation, measures, card):
    """The table, and what to know of its numbers."""
    step = card["run"]["step"]
    data = f"{config.data.source} {config.data.eval_split}, {evaluation.images} images"
    title = f"step {step}, {data}"
    console.print_table(title, *evaluation_table({f"step {step}": evaluation.scalars}))
    if measures.features is not None and evaluation.images <= measures.features.dim:
        tell(
            f"The Fréchet distance is of {evaluation.images} images in {measures.features.dim} "
            "dimensions: biased upwards by their small number; compare it at equal numbers alone."
        )
