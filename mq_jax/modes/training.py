"""--mode=train: checks all that can be checked, claims the folder, trains, sums up."""

import contextlib
import pathlib
import sys
from collections.abc import Collection

import jax
from absl import logging
from ml_collections import ConfigDict

from mq_jax.data import inputs
from mq_jax.devices.agreement import together
from mq_jax.devices.sharding import make_mesh
from mq_jax.metrics.measures import load_measures
from mq_jax.modes.claiming import claimed
from mq_jax.modes.older import take_over
from mq_jax.modes.unchanged import require_alike, trained_steps
from mq_jax.runs.standing import best_row, read_settled
from mq_jax.runs.writers import read_metrics
from mq_jax.terminal import console
from mq_jax.terminal.escaping import shell_word
from mq_jax.terminal.streams import tell
from mq_jax.training.build import total_steps
from mq_jax.training.consistency import require_trainable
from mq_jax.training.frozen import load_frozen
from mq_jax.training.starting import require_base
from mq_jax.training.train import monitored, train
from mq_jax.training.validate import validate


def run_training(
    config: ConfigDict,
    folder: pathlib.Path,
    weights_dir: str,
    *,
    accept_changed_data: bool,
    typed: Collection[str] = (),
) -> str:
    """Trains, or goes on with a run; ends with its table and its report.

    Args:
      config: the experiment.
      folder: of the run.
      weights_dir: of the Inception weights; "": the cache of this program.
      accept_changed_data: whether a run may go on with other images than it began with.
      typed: dotted names of the fields that a person gave.

    Returns:
      "finished", "stopped early" or the name of a signal.

    Raises:
      ValueError: the configuration, the data or the folder do not fit, or another process
        writes into it.
      OSError: something cannot be read or written.
      FloatingPointError: the training went wrong.
    """
    with together():
        take_over(config, folder, typed)
        validate(config)
        require_trainable(config)
        inputs.require_directory(config)
        make_mesh(config.mesh.data, config.mesh.fsdp)  # Raises where the devices make no such mesh.
        inputs.require_divisible(config, jax.device_count())
        split, eval_source = inputs.open_split(config), inputs.open_evaluation(config)
        sources = inputs.levels(config, split)
        steps = total_steps(config, len(sources.autoencoder))
        require_base(config, folder, started=bool(trained_steps(folder)))
        frozen = load_frozen(config)
        measures = load_measures(
            config.eval.metrics, lpips_dir=config.perceptual.dir, weights_dir=weights_dir
        )
    beginning = None
    if config.init_from:
        # What reads the models of others takes its time to load, as does the report below.
        from mq_jax.modes.origins import beginning_of

        beginning = beginning_of(config, folder)
    contents = {"train": split.contents(), "evaluation": eval_source.contents()}
    require_alike(contents)
    with claimed(config, folder, lambda: contents, accept=accept_changed_data):
        ended = train(config, steps, sources, eval_source, frozen, measures, folder, beginning)
        sum_up(folder, ended, monitored(config))
    return ended


def sum_up(folder: pathlib.Path, ended: str, monitor: str) -> None:
    """The report, then the table at the end of a training of either stage and where to look.

    Args:
      folder: of the run.
      ended: why; nothing is told after a signal.
      monitor: logged name of the metric that decides which checkpoint is best.
    """
    if ended.startswith("SIG") or jax.process_index():
        return
    from mq_jax.modes.table import evaluation_table
    from mq_jax.report import write_report

    report = folder / "report.html"
    try:
        write_report([folder], report)
        told = [f"Report: {report}"]
    except (OSError, ValueError) as error:
        # The training is done and saved all the same.
        logging.warning("The report could not be written: %s", error)
        told = []
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if monitor in row]
    named = {}
    if rows:
        best = best_row(rows, monitor, read_settled(folder))
        chosen = {"start": rows[0], "end": rows[-1]} | ({"best": best} if best else {})
        named = {f"{name} (step {row['step']})": row for name, row in chosen.items()}
    console.print_table(f"Training {ended}: {folder}", *evaluation_table(named))
    tell(*_ailments(folder))
    # Where the disk was full, there may be none.
    pictures = sorted((folder / "reconstructions").glob("*.png"))
    told = [f"Originals over reconstructions: {path}" for path in pictures[-1:]] + told
    curves = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "tensorboard")]
    tell(*told, f"Curves: {' '.join(map(shell_word, curves))}")


def _ailments(folder: pathlib.Path) -> list[str]:
    """What the report says of the codes; nothing where it could not be made either."""
    from mq_jax.report.codes import too_few
    from mq_jax.report.runs import read_runs

    with contextlib.suppress(OSError, ValueError):
        return [told for run in read_runs([folder]) if (told := too_few(run))]
    return []
