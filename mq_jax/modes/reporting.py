"""--mode=report: one page on a run, or on several beside one another."""

import contextlib
import pathlib
from collections.abc import Sequence

from mq_jax.devices.places import local_path
from mq_jax.report import write_report
from mq_jax.storage.lock import held
from mq_jax.terminal.streams import tell


def run_report(folders: Sequence[str | pathlib.Path], output: str) -> None:
    """Writes the page.

    Args:
      folders: of runs, at least one.
      output: the file; "": report.html in the folder of the only run, comparison.html here for
        several.

    Raises:
      ValueError: there is no folder, or one of them is of no run.
      OSError: a file cannot be read or written.
    """
    if not folders:
        raise ValueError("No run was named; expected --workdir=DIR, or folders after the flags.")
    paths = [local_path(folder, "The folder of a run") for folder in folders]
    default = paths[0] / "report.html" if len(paths) == 1 else pathlib.Path("comparison.html")
    path = local_path(output, "--output") if output else default
    with _own(path.absolute()):
        write_report(paths, path)
    tell(f"Report: {path}")


def _own(path: pathlib.Path) -> contextlib.AbstractContextManager:
    """Keeps others out of the run in whose folder a file lies, if it lies in any."""
    for folder in path.parents:
        if (folder / "config.json").is_file():
            return held(folder, "write the report elsewhere: --output=FILE")
    return contextlib.nullcontext()
