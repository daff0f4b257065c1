"""What becomes of step folders that cannot be used: damaged ones are kept, unfinished ones go."""

from __future__ import annotations

import pathlib
import shutil

from absl import logging


def set_aside(folder: pathlib.Path, reason: str) -> None:
    """Gives a damaged checkpoint a name that Orbax ignores.

    Args:
      folder: of the step.
      reason: for the log.

    Raises:
      OSError: it cannot be renamed.
    """
    target = folder.with_name(f"damaged-{folder.name}")
    while target.exists():
        target = target.with_name(f"{target.name}-again")
    message = "Skipping the damaged checkpoint %s (%s); it becomes %s"
    logging.warning(message, folder, reason, target.name)
    folder.rename(target)


def remove_unfinished(directory: pathlib.Path) -> None:
    """Removes what processes left that were stopped in a save; no arrays are whole there.

    Args:
      directory: of the step folders, into which nobody else writes.
    """
    for folder in directory.glob("[0-9]*.orbax-checkpoint-tmp*"):
        logging.warning("Removing %s: its save never finished", folder)
        shutil.rmtree(folder, ignore_errors=True)
