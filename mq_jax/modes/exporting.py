"""--mode=export: the best checkpoint of a run as files of its own."""

import pathlib
import shlex

import jax
from ml_collections import ConfigDict

from mq_jax.devices.agreement import together
from mq_jax.devices.environment import environment
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.named import evaluations_beside, is_of_the_run
from mq_jax.evaluation.protocol import FILE, read_evaluation
from mq_jax.modes.restored import move_to_this_machine, restore
from mq_jax.modes.unchanged import accepted_changes
from mq_jax.runs import workdir
from mq_jax.runs.origin import read_origin
from mq_jax.runs.workdir import flat
from mq_jax.storage.files import size_of
from mq_jax.storage.joint_lock import held_together
from mq_jax.terminal import console
from mq_jax.terminal.streams import tell
from mq_jax.tokenizers.export import make_export
from mq_jax.tokenizers.export_card import training_facts
from mq_jax.tokenizers.export_reading import FOLDER
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.training.validate import validate


def run_export(folder: pathlib.Path, *, overwrite: bool, step: int | None = None) -> None:
    """Writes `export` into the folder of a run.

    Args:
      folder: of the run.
      overwrite: whether an export of another step may be replaced.
      step: of the checkpoint; None: the best.

    Raises:
      ValueError: there is no such checkpoint, or another export, or another process writes there.
      OSError: something cannot be read or written.
    """
    config = ConfigDict(workdir.read_config(folder))
    move_to_this_machine(config)
    validate(config)
    with held_together(folder, "export later"):
        _write(folder, config, overwrite, step)


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
        if jax.process_count() > 1:
            raise ValueError(
                f"{folder} has no export, which one process makes: --mode=export "
                f"--workdir={shlex.quote(str(folder))}; then start the others again."
            )
    run_export(folder, overwrite=False)


def _write(folder: pathlib.Path, config: ConfigDict, overwrite: bool, step: int | None) -> None:
    """Exports into a folder that is this process's own."""
    restored = restore(folder, config, make_mesh(config.mesh.data, config.mesh.fsdp), step)
    export = make_export(config, restored.built.objective, restored.state)
    facts = {
        "training": {
            **training_facts(config, restored.step),
            "data_changes": accepted_changes(folder),
            **_begun_with(folder),
        },
        "evaluation": _evaluation(folder, flat(config.to_dict()), restored.step),
        "environment": environment(),
    }
    written = write_export(folder / FOLDER, export, facts, overwrite=overwrite)
    rows = [[path.name, f"{size_of(path) / 2**20:.2f}"] for path in sorted(written.iterdir())]
    console.print_table(f"Step {restored.step}: {written}", ["", "MiB"], rows)
    tell(f"Fingerprint: {export.fingerprint}")
    if facts["evaluation"] is None:
        tell("The model card has no numbers: evaluate this step first, then export again.")


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
