"""The files of runs, as the report needs them; a piece that is missing is named, not missed."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from mq_jax.evaluation.named import evaluations_beside, is_of_the_run, told
from mq_jax.evaluation.protocol import read_evaluation
from mq_jax.runs.cost import Cost, read_cost
from mq_jax.runs.snapshot import Snapshot, read_snapshot
from mq_jax.runs.stages import is_prior
from mq_jax.runs.standing import FIRST, best_row, read_settled
from mq_jax.runs.workdir import flat, read_config
from mq_jax.runs.writers import read_metrics
from mq_jax.storage.schema import ANY, FLAG, NUMBER, TEXT, Each, check, read_json, whole
from mq_jax.terminal.escaping import shell_word, visible

_NEEDED = {
    **dict.fromkeys(("model.kind", "data.source", "train.hypergradient", "eval.monitor"), TEXT),
    **dict.fromkeys(("codebook.size", "codebook.dim", "data.image_size"), whole(1)),
    "data.eval_split": TEXT,
    "data.eval_image_size": whole(0),
    "train.batch_size": whole(1),
    **{"codebook.kind": TEXT, "model.layer_norm": FLAG, "outer.learning_rate_ratio": NUMBER},
    **{"quantizer.kind": TEXT, "quantizer.groups": whole(1), "quantizer.depth": whole(1)},
    **{"quantizer.restart_every": whole(0), "quantizer.ema.restart_below": NUMBER},
}


_NEEDED_OF_PRIORS = {"prior.kind": TEXT, "prior.size": TEXT, "train.batch_size": whole(1)}


def monitor_of(config: Mapping[str, Any]) -> str:
    """The metric, without its prefix, that decides which step of a run is the best.

    Args:
      config: by dotted name.

    Returns:
      A name.
    """
    return "nats_per_token" if is_prior(config) else config["eval.monitor"]


class Notice(NamedTuple):
    """What the reader should know before reading on.

    Attributes:
      text: a sentence.
      command: that mends it; "" where none does.
    """

    text: str
    command: str = ""


class Run(NamedTuple):
    """What is known of a run.

    Attributes:
      name: its folder's, with as much of the path as tells it from the others.
      config: by dotted name.
      rows: lines of metrics.jsonl.
      best: the line of the best evaluation, as runs.standing has it; None before one.
      settled: the step from which on evaluations go before earlier ones.
      snapshot: of the best state, or None.
      evaluation: evaluation.json, or None.
      others: evaluations that have names of their own, by these.
      environment: environment.json, or None.
      cost: cost.json, or None.
      notices: pieces that are missing or out of date.
    """

    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    best: dict[str, Any] | None
    settled: int
    snapshot: Snapshot | None
    evaluation: dict[str, Any] | None
    others: dict[str, dict[str, Any]]
    environment: dict[str, Any] | None
    cost: Cost | None
    notices: list[Notice]


def read_runs(folders: Sequence[pathlib.Path]) -> list[Run]:
    """Reads the folders of runs.

    Args:
      folders: at least one, all different.

    Returns:
      A Run for each.

    Raises:
      FileNotFoundError: a folder has no config.json.
      ValueError: a config.json is damaged, a folder is named twice, or none is.
    """
    resolved = [folder.resolve() for folder in folders]
    if not folders:
        raise ValueError("The report got no folder; expected those of one or more runs.")
    twice = {str(path) for path in resolved if resolved.count(path) > 1}
    if twice:
        raise ValueError(f"Named more than once: {', '.join(sorted(twice))}; name each run once.")
    return [_read_run(*pair) for pair in zip(folders, _distinguishing_names(resolved), strict=True)]


def _read_run(folder: pathlib.Path, name: str) -> Run:
    config = flat(read_config(folder))
    prior = is_prior(config)
    try:
        check(config, _NEEDED_OF_PRIORS if prior else _NEEDED)
    except ValueError as error:
        raise ValueError(
            f"{folder / 'config.json'} cannot be used ({error}); expected the configuration that "
            "training writes."
        ) from error
    place = shell_word(str(folder))
    training = f"python -m mq_jax.main --workdir={place}"
    evaluating = f"python -m mq_jax.main --mode=evaluate --workdir={place}"
    notices = []

    def piece(read, what, command):
        try:
            return read(folder)
        except FileNotFoundError:
            notices.append(Notice(f"{what} is not there.", command))
        except (OSError, ValueError) as error:
            logging.warning("%s", error)
            notices.append(Notice(f"{what} cannot be used; remove it.", command))
        return None

    rows = piece(_read_rows, "metrics.jsonl, the curves,", training)
    if rows == []:
        notices.append(Notice("metrics.jsonl has no whole line yet.", training))
    snapshot = evaluation = None
    if not prior:
        snapshot = piece(read_snapshot, "snapshot.npz, pictures and codes,", evaluating)
        evaluation = piece(
            read_evaluation, "evaluation.json, the protocol and all metrics,", evaluating
        )
    environment = piece(_read_environment, "environment.json, packages and devices,", training)
    cost = piece(read_cost, "cost.json, parameters and FLOPs,", training)
    settled = piece(
        read_settled, "settled.json, the step of the whole adversarial weight,", training
    )
    settled = FIRST if settled is None else settled
    best = best_row(rows or [], f"eval/{monitor_of(config)}", settled)
    if best is not None:
        steps = {
            "evaluation.json": evaluation and evaluation["run"]["step"],
            "snapshot.npz": snapshot and snapshot.step,
        }
        notices += [Notice(text, evaluating) for text in _out_of_date(steps, best["step"])]
    if evaluation is not None and not is_of_the_run(evaluation, config):
        own = f"{config['data.source']} {config['data.eval_split']}"
        text = f"evaluation.json is of {told(evaluation)}, not of the run's own images, {own}."
        notices.append(Notice(text, evaluating))
    others = evaluations_beside(folder)
    found = best, settled, snapshot, evaluation, others, environment, cost
    return Run(name, config, rows or [], *found, notices)


def _out_of_date(steps, best):
    """A sentence for each file that is of another step than the best."""
    return [
        f"{what} is of step {step:,}; the best is step {best:,} by now."
        for what, step in steps.items()
        if step not in (None, best)
    ]


def _read_rows(folder):
    return read_metrics(folder / "metrics.jsonl")


def _read_environment(folder):
    path = folder / "environment.json"
    try:
        return read_json(path, Each(ANY))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it.") from error


def _distinguishing_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """For each path its last parts, as many as it takes to be the only one."""
    names = []
    for path in paths:
        for count in range(1, len(path.parts) + 1):
            tail = path.parts[-count:]
            if sum(other.parts[-count:] == tail for other in paths) == 1:
                break
        names.append(visible("/".join(tail)))
    return names
