"""--mode=export: the best checkpoint of a run as files of its own."""

import pathlib
import shlex
from collections.abc import Collection
from typing import Any

import jax
from ml_collections import ConfigDict

from mq_jax.devices.agreement import together
from mq_jax.devices.environment import environment
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.named import evaluations_beside, is_of_the_run
from mq_jax.evaluation.protocol import FILE, read_evaluation
from mq_jax.formats.choosing import chosen, present
from mq_jax.modes.unchanged import accepted_changes
from mq_jax.priors.facts import read_facts
from mq_jax.runs import workdir
from mq_jax.runs.origin import read_origin
from mq_jax.runs.provenance import provenance_facts
from mq_jax.runs.stages import is_prior
from mq_jax.runs.workdir import flat
from mq_jax.runs.writers import read_metrics
from mq_jax.samplers.export import make_prior_export
from mq_jax.samplers.export_writing import write_prior
from mq_jax.samplers.restored import restored_prior
from mq_jax.storage.files import size_of
from mq_jax.storage.joint_lock import held_together
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell
from mq_jax.tokenizers.architecture import architecture_of
from mq_jax.tokenizers.export import make_export
from mq_jax.tokenizers.export_card import training_facts
from mq_jax.tokenizers.export_folder import FOLDER
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.training.restored import move_to_this_machine, restore
from mq_jax.training.validate import validate


def run_export(
    folder: pathlib.Path,
    *,
    overwrite: bool,
    step: int | None = None,
    formats: Collection[str] = (),
) -> None:
    """Writes `export` into the folder of a run.

    Args:
      folder: of the run.
      overwrite: whether an export of another step may be replaced.
      step: of the checkpoint; None: the best.
      formats: of mq_jax.formats.FORMATS, to be written beside ours.

    Raises:
      ValueError: there is no such checkpoint, or another export, or another process writes there,
        or a format cannot hold the model.
      OSError: something cannot be read or written.
    """
    config = ConfigDict(workdir.read_config(folder))
    if is_prior(config):
        write = _write_prior
    else:
        write = _write
        move_to_this_machine(config)
        validate(config)
    with held_together(folder, "export later"):
        write(folder, config, overwrite, step, formats)


def require_export(folder: pathlib.Path) -> None:
    """Exports a run that has no export yet; all processes of a run make this call.

    Args:
      folder: of a run, or of an export.

    Raises:
      ValueError: there are several processes, of which one alone can export; or as run_export.
      OSError: something cannot be read or written.
    """
    if not (folder / "config.json").is_file() or (folder / FOLDER).is_dir():
        return
    with together():
        if is_prior(workdir.read_config(folder)):
            raise ValueError(
                f"{folder} is the run of a prior, the second stage; expected a tokenizer."
            )
        if jax.process_count() > 1:
            raise ValueError(
                f"{folder} has no export, which one process makes: --mode=export "
                f"--workdir={shlex.quote(str(folder))}; then start the others again."
            )
    run_export(folder, overwrite=False)


def _write(
    folder: pathlib.Path,
    config: ConfigDict,
    overwrite: bool,
    step: int | None,
    formats: Collection[str],
) -> None:
    """Exports into a folder that is this process's own."""
    # An export that is written again, after an evaluation say, keeps the formats it had.
    had = [] if overwrite else present(folder / FOLDER)
    how = {"overwrite": overwrite, "formats": chosen([*formats, *had], architecture_of(config))}
    restored = restore(folder, config, make_mesh(config.mesh.data, config.mesh.fsdp), step)
    export = make_export(config, restored.built.objective, restored.state)
    evaluation = _evaluation(folder, flat(config.to_dict()), restored.step)
    facts = _facts(folder, config, restored.step, evaluation)
    written = write_export(folder / FOLDER, export, facts, **how)
    _tell(written, restored.step, export.fingerprint)
    if facts["evaluation"] is None:
        tell("The model card has no numbers: evaluate this step first, then export again.")


def _write_prior(
    folder: pathlib.Path,
    config: ConfigDict,
    overwrite: bool,
    step: int | None,
    formats: Collection[str],
) -> None:
    """As _write, of the run of a prior."""
    if formats:
        raise ValueError("--formats is of tokenizers; this is the run of a prior: leave it out.")
    restored = restored_prior(folder, step)
    export = make_prior_export(restored, read_facts(folder))
    facts = _facts(folder, config, restored.step, _likelihood(folder, restored.step))
    written = write_prior(folder / FOLDER, export, facts, overwrite=overwrite)
    _tell(written, restored.step, export.fingerprint)


def _facts(folder: pathlib.Path, config: ConfigDict, step: int, evaluation: Any) -> dict[str, Any]:
    """What a model card says beside the model."""
    training = training_facts(config, step) | {"data_changes": accepted_changes(folder)}
    training |= _begun_with(folder) | provenance_facts(folder)
    return {"training": training, "evaluation": evaluation, "environment": environment()}


def _tell(written: pathlib.Path, step: int, fingerprint: str) -> None:
    """The table of what was written."""
    rows = [[path.name, f"{size_of(path) / 2**20:.2f}"] for path in sorted(written.iterdir())]
    console.print_table(f"Step {step}: {written}", ["", "MiB"], rows)
    tell(f"Fingerprint: {fingerprint}")


def _likelihood(folder: pathlib.Path, step: int) -> dict[str, float | None] | None:
    """What the training measured at a step on the split that is held out."""
    path = folder / "metrics.jsonl"
    for row in read_metrics(path) if path.is_file() else []:
        found = {name: value for name, value in row.items() if name.startswith("eval/")}
        if row["step"] == step and found:
            return found
    return None


def _begun_with(folder):
    """The model that the run took its first weights from, without its path."""
    origin = read_origin(folder)
    if origin is None:
        return {}
    return {"begun_with": {"fingerprint": origin.fingerprint, "taken": list(origin.taken)}}


def _evaluation(folder, config, step):
    """The numbers for the card, if there are some of this step on the run's own images."""
    own = [read_evaluation(folder)] if (folder / FILE).exists() else []
    found = [*own, *evaluations_beside(folder).values()]
    return next((c for c in found if c["run"]["step"] == step and is_of_the_run(c, config)), None)
