"""--mode=evaluate: a checkpoint of a run, the best unless another is named, on a whole set."""

import pathlib
import time
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from mq_jax.data import inputs
from mq_jax.data.contents import Contents
from mq_jax.data.splits import HOLDOUTS
from mq_jax.devices.agreement import together
from mq_jax.devices.environment import environment
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.evaluate import Evaluation, Evaluator
from mq_jax.evaluation.protocol import config_hash, protocol_card, write_evaluation
from mq_jax.images.scale import comparison
from mq_jax.metrics.measures import Measures, check_names, every_measure, load_measures
from mq_jax.modes.destination import asked_for, destination, is_own_data, require_name, shows_others
from mq_jax.modes.older import take_over
from mq_jax.modes.table import evaluation_table
from mq_jax.modes.unchanged import changes_since, tell_data
from mq_jax.runs import workdir
from mq_jax.runs.provenance import provenance_facts
from mq_jax.runs.snapshot import write_snapshot
from mq_jax.storage.files import replacing
from mq_jax.storage.joint_lock import held_together
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell
from mq_jax.training.restored import Restored, move_to_this_machine, restore
from mq_jax.training.validate import validate

# An evaluation needs the model of the run; it may look at other images.
FREE_FIELDS = (
    *("seed", "train", "inner", "outer", "disc", "mesh", "data", "eval"),
    *("perceptual.dir", "codebook.shard_lookup", "deterministic", "init_from"),
)


class Wanted(NamedTuple):
    """What is evaluated where it is not the best checkpoint on the run's own images.

    Attributes:
      step: of the checkpoint; None: the best.
      name: of a folder of its own for what is left; None: where the evaluation needs one, it is
        made of the data and the step.
      images: a folder, of which all images are evaluated; None: the set of the configuration.
      size: side to which images are scaled and then cropped, pixels; None: as the configuration
        makes them.
    """

    step: int | None = None
    name: str | None = None
    images: pathlib.Path | None = None
    size: int | None = None


USUAL = Wanted()


def run_evaluation(
    folder: pathlib.Path,
    given: ConfigDict | None,
    wanted: Wanted = USUAL,
    *,
    metrics: str,
    weights_dir: str,
    typed: Collection[str] = (),
) -> None:
    """Evaluates a checkpoint of a run; leaves evaluation.json, evaluation.png and snapshot.npz.

    They are the run's where it is evaluated at its best step on its own images; any other
    evaluation has a folder of its own, below `evaluations`.

    Args:
      folder: of the run.
      given: a configuration of the same model with other data; None for the run's own.
      wanted: what else is asked for.
      metrics: names from measures.NAMES, divided by commas; "all": what can be measured here.
      weights_dir: of the Inception weights; "": the cache of this program.
      typed: dotted names of the fields that a person gave.

    Raises:
      ValueError: the configuration, the data, the checkpoint or the name do not fit, or another
        process writes into the folder.
      OSError: something cannot be read or written.
    """
    with together():
        require_name(wanted.name)
        of_the_run = workdir.read_config(folder)
        stored = ConfigDict(of_the_run)
        config = _configuration(folder, of_the_run, given, typed)
        _take_images(config, wanted, typed)
        validate(config)
        inputs.require_directory(config)
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
        source = inputs.open_evaluation(config)
        contents = source.contents()
        own_data = is_own_data(folder, of_the_run, config, contents)
        measures = _measures(config, metrics, weights_dir)
        changes = _changes(folder, contents, own_data)
        # What may differ from the run: where it computes.
        stored.mesh, stored.codebook.shard_lookup = config.mesh, config.codebook.shard_lookup
    with held_together(folder, "evaluate later"):
        restored = restore(folder, stored, mesh, wanted.step)
        asked = asked_for(config, contents, restored.step, own_data=own_data)
        run = {"step": restored.step, "own_data": own_data, "asked": asked}
        with together():
            place = destination(folder, wanted.name, config, run, restored.best)
        evaluator = Evaluator(config, restored.built.objective, source, mesh, measures)
        evaluation, seconds = _evaluated(evaluator, restored, len(source))
        if jax.process_index() == 0:
            moved = own_data and config.data.dir != of_the_run["data"]["dir"]
            if moved and shows_others(folder, evaluation):
                run["own_data"] = False
                if place == folder:
                    run["asked"] = asked_for(config, contents, restored.step, own_data=False)
                    place = destination(folder, None, config, run, restored.best)
            run |= {"config": config_hash(of_the_run), "seconds": seconds, **environment()}
            run |= provenance_facts(folder)
            _leave(place, folder, config, evaluation, measures, changes, run)


def _configuration(folder, of_the_run, given, typed) -> ConfigDict:
    """The configuration to evaluate under: the run's, or one of the same model."""
    if given is None:
        config = ConfigDict(of_the_run)
        move_to_this_machine(config)
        return config
    # A run of before held out other images, which alone it was not trained on.
    take_over(given, folder, typed)
    workdir.claim(folder, given.to_dict(), FREE_FIELDS)
    return given


def _take_images(config: ConfigDict, wanted: Wanted, typed: Collection[str]) -> None:
    """Sets the fields that --images and --size stand for."""
    fields: dict[str, Any] = {}
    if wanted.images is not None:
        # All that is an image today, also for a run of before.
        fields = {"source": "folder", "dir": str(wanted.images), "eval_split": "all"}
        fields |= {"holdout": HOLDOUTS[0]}
    if wanted.size is not None:
        fields |= {"eval_image_size": wanted.size, "resize": True}
    for name, value in fields.items():
        if f"data.{name}" in typed:
            flag = "--size" if name in ("eval_image_size", "resize") else "--images"
            raise ValueError(
                f"config.data.{name} was given and {flag}, which sets it, too; give one of them."
            )
        config.data[name] = value


def _evaluated(evaluator: Evaluator, restored: Restored, images: int) -> tuple[Evaluation, float]:
    """The evaluation, with a live line on the way, and the seconds it took."""
    started = time.monotonic()
    own = -(-images // jax.process_count())
    bar = console.ImageBar(own, live=jax.process_index() == 0)
    evaluation = evaluator.run(restored.state, bar.advance)
    bar.close()
    return evaluation, round(time.monotonic() - started, 2)


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


def _changes(folder, contents: Contents, own_data: bool) -> list[str]:
    """What has changed of the run's data; its evaluation images only where these are theirs."""
    found = {"evaluation": contents}
    tell_data(found)
    changes = changes_since(folder, found if own_data else {})
    for change in changes if jax.process_index() == 0 else ():
        logging.warning("The data of this run changed %s", change)
    return changes


def _leave(place, folder, config, evaluation: Evaluation, measures: Measures, changes, run):
    """Writes the files; then, or if one cannot be written, prints the table."""
    card = {
        "protocol": protocol_card(config, evaluation, measures, changes),
        "metrics": {n.removeprefix("eval/"): v for n, v in evaluation.scalars.items()},
        "run": run,
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        before = set(place.glob("evaluation-*.json"))
        protocol = write_evaluation(place, card)
        write_snapshot(place, evaluation.snapshot(run["step"]))
        path = place / "evaluation.png"
        shown = Image.fromarray(comparison(evaluation.originals, evaluation.reconstructions))
        with replacing(path) as temporary:
            shown.save(temporary, format="png")
    finally:
        _print_evaluation(config, evaluation, measures, run["step"])
    for kept in set(place.glob("evaluation-*.json")) - before:
        tell(f"The numbers of before, of another protocol or step, are kept: {kept}")
    if place != folder:
        tell(f"The run's own evaluation is as it was; this one is in {place}")
    tell(f"Protocol and numbers: {protocol}", f"Originals over reconstructions: {path}")


def _print_evaluation(config, evaluation, measures, step):
    """The table, and what to know of its numbers."""
    data = f"{config.data.source} {config.data.eval_split}, {evaluation.images} images"
    title = f"step {step}, {data}"
    console.print_table(title, *evaluation_table({f"step {step}": evaluation.scalars}))
    if measures.features is not None and evaluation.images <= measures.features.dim:
        tell(
            f"The Fréchet distance is of {evaluation.images} images in {measures.features.dim} "
            "dimensions: biased upwards by their small number; compare it at equal numbers alone."
        )
