"""Whether the data of a run is what it was: recorded at its start, compared when it goes on."""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging

from mq_jax.data.contents import Contents, sentence
from mq_jax.devices.agreement import gather, together
from mq_jax.runs.listing import Recorded, difference, read_recorded, write_recorded


def require_alike(contents: Mapping[str, Contents]) -> None:
    """Checks that all processes of a run see the same data; each makes this call.

    Args:
      contents: by use.

    Raises:
      ValueError: this process sees other data than process 0.
      FailedElsewhere: another one does.
    """
    digests = [np.frombuffer(bytes.fromhex(found.digest), np.uint8) for found in contents.values()]
    first, *_ = gather(np.stack(digests))
    with together():
        for (use, found), here, there in zip(contents.items(), digests, first, strict=True):
            if (here != there).any():
                raise ValueError(
                    f"This process sees {found.images} images for {use}, not those that process 0 "
                    "sees; expected the same data on all machines. Copy it anew, or mount it."
                )


def keep_to_data(folder: pathlib.Path, contents: Mapping[str, Contents], *, accept: bool) -> str:
    """Records the data of a run, or checks that it is still what the run has been trained on.

    Args:
      folder: of the run, claimed.
      contents: of now, by use.
      accept: whether other data may take the place of what was recorded.

    Returns:
      What the log of the run has to say of it, empty for nothing.

    Raises:
      ValueError: the data has changed since, in one line how; or the record is damaged.
      OSError: the record cannot be written.
    """
    steps = trained_steps(folder)
    # Before its first checkpoint nothing of a run depends on its data.
    recorded = read_recorded(folder) if steps else None
    found = _facts(contents)
    if recorded is None:
        write_recorded(folder, Recorded(*found, []))
        return "This run has no record of its data; it is made now." if steps else ""
    changed = difference(recorded, *found)
    if not changed:
        return ""
    if not accept:
        raise ValueError(
            f"The data is not what this run was trained on: {changed}. Put it back, give another "
            "--workdir, or go on all the same: --accept_changed_data."
        )
    changes = [*recorded.changes, {"after_step": max(steps), "difference": changed}]
    write_recorded(folder, Recorded(*found, changes))
    return f"Going on with data that changed after step {max(steps)}: {changed}"


def tell_data(contents: Mapping[str, Contents]) -> None:
    """One line of the log on what each split holds, from the first process."""
    if jax.process_index() == 0:
        logging.info("%s", sentence(contents))


def accepted_changes(folder: pathlib.Path) -> list[str]:
    """What changed while a run was trained, for its cards.

    Args:
      folder: of the run.

    Returns:
      A phrase for each change; empty where there was none.

    Raises:
      ValueError: the record is damaged.
    """
    recorded = read_recorded(folder)
    changes = [] if recorded is None else recorded.changes
    return [f"after step {change['after_step']}: {change['difference']}" for change in changes]


def changes_since(folder: pathlib.Path, contents: Mapping[str, Contents]) -> list[str]:
    """accepted_changes, and what of the data has changed since the run was last trained.

    Args:
      folder: of the run.
      contents: of now, of the uses that are those of the run.

    Returns:
      A phrase for each change.

    Raises:
      ValueError: the record is damaged.
    """
    recorded = read_recorded(folder)
    changed = "" if recorded is None else difference(recorded, *_facts(contents))
    since = [f"since the training: {changed}"] if changed else []
    return accepted_changes(folder) + since


def _facts(contents):
    """What is recorded of each use, and the names."""
    return (
        {use: found.facts for use, found in contents.items()},
        {use: list(found.names) for use, found in contents.items()},
    )


def trained_steps(folder: pathlib.Path) -> list[int]:
    """The steps of a run that have a checkpoint, damaged or not.

    Args:
      folder: of the run, or of none yet.

    Returns:
      Their numbers, in no order.
    """
    return [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()]
