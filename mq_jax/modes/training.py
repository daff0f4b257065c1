"""--mode=train: checks all that can be checked, claims the folder, trains, sums up."""

import json
import pathlib
import shlex
import sys

import jax
from absl import logging
from ml_collections import ConfigDict

from mq_jax.data import inputs
from mq_jax.devices.agreement import together
from mq_jax.devices.environment import environment
from mq_jax.devices.sharding import make_mesh
from mq_jax.metrics.measures import load_measures
from mq_jax.metrics.perceptual import load_frozen
from mq_jax.modes.table import evaluation_table
from mq_jax.report import write_report
from mq_jax.runs import workdir
from mq_jax.runs.writers import read_metrics
from mq_jax.terminal import console
from mq_jax.training.build import total_steps
from mq_jax.training.train import monitored, train
from mq_jax.training.validate import validate

# These change where a run reads, where it computes and how fast, never what it computes.
FREE_FIELDS = (
    *("data.dir", "data.threads", "data.workers", "perceptual.dir"),
    *("mesh", "codebook.shard_lookup"),
)


def run_training(config: ConfigDict, folder: pathlib.Path, weights_dir: str) -> str:
    """Trains, or goes on with a run; ends with its table and its report.

    Args:
      config: the experiment.
      folder: of the run.
      weights_dir: of the Inception weights; "": the cache of this program.

    Returns:
      "finished", "stopped early" or the name of a signal.

    Raises:
      ValueError: the configuration, the data or the folder do not fit.
      OSError: something cannot be read or written.
      FloatingPointError: the training went wrong.
    """
    with together():
        _take_over(config, folder)
        validate(config)
        make_mesh(config.mesh.data, config.mesh.fsdp)  # Raises where the devices make no such mesh.
        inputs.require_divisible(config)
        sources, eval_source = inputs.open_training(config), inputs.open_evaluation(config)
        steps = total_steps(config, len(sources.autoencoder))
        frozen = load_frozen(config)
        measures = load_measures(
            config.eval.metrics, lpips_dir=config.perceptual.dir, weights_dir=weights_dir
        )
    with together():
        if jax.process_index() == 0:
            workdir.claim(folder, config.to_dict(), FREE_FIELDS)
            text = json.dumps(environment(), indent=2) + "\n"
            workdir.write_atomically(folder / "environment.json", text)
            console.log_to_file(folder / "train.log")
    ended = train(config, steps, sources, eval_source, frozen, measures, folder)
    if not ended.startswith("SIG") and jax.process_index() == 0:
        _print_summary(folder, ended, monitored(config))
    return ended


def _take_over(config: ConfigDict, folder: pathlib.Path) -> None:
    """Sets the fields that a run of before does not know to what was done without them."""
    fields = workdir.adopted(folder)
    config.update_from_flattened_dict(fields)
    if fields and jax.process_index() == 0:
        told = ", ".join(f"{name} = {value!r}" for name, value in fields.items())
        logging.info("This run is older than some fields of the configuration: %s", told)


def _print_summary(folder: pathlib.Path, ended: str, monitor: str) -> None:
    """The table at the end of a training run, and where to look."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if monitor in row]
    # Of equals the later, as the checkpoints have it.
    best = min(rows, key=lambda row: (row[monitor], -row["step"]))
    chosen = {"start": rows[0], "end": rows[-1], "best": best}
    named = {f"{name} (step {row['step']})": row for name, row in chosen.items()}
    console.print_table(f"Training {ended}: {folder}", *evaluation_table(named))
    pictures = sorted((folder / "reconstructions").glob("*.png"))
    print(f"Originals over reconstructions: {pictures[-1]}")
    try:
        write_report([folder], folder / "report.html")
        print(f"Report: {folder / 'report.html'}")
    except (OSError, ValueError) as error:
        # The training is done and saved all the same.
        logging.warning("The report could not be written: %s", error)
    curves = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "tensorboard")]
    print(f"Curves: {shlex.join(curves)}")
