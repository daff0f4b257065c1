"""--mode=report: one page on a run, or on several beside one another."""

import contextlib
import pathlib
from collections.abc import Sequence

from mq_jax.devices.places import local_path
from mq_jax.report import is_report, write_report
from mq_jax.storage.lock import held
from mq_jax.terminal.streams import tell

# Of the report of a run, in its folder.
_FILE = "report.html"


def run_report(folders: Sequence[str | pathlib.Path], output: str) -> None:
    """Writes the page.

    Args:
      folders: of runs, at least one.
      output: the file; "": report.html in the folder of the only run.

    Raises:
      ValueError: there is no folder, or one of them is of no run; several runs have no output, or
        it is a file that this report may not replace.
      OSError: a file cannot be read or written.
    """
    if not folders:
        raise ValueError("No run was named; expected --workdir=DIR, or folders after the flags.")
    paths = [local_path(folder, "The folder of a run") for folder in folders]
    if len(paths) > 1 and not output:
        raise ValueError(
            "A report over several runs belongs into none of their folders; say where it goes: "
            "--output=FILE."
        )
    path = local_path(output, "--output") if output else paths[0] / _FILE
    _require_free(path.absolute(), paths)
    with _own(path.absolute()):
        write_report(paths, path)
    tell(f"Report: {path}")


def _require_free(path: pathlib.Path, folders: Sequence[pathlib.Path]) -> None:
    """Raises where the page would replace what is no page of its kind."""
    runs = [folder.resolve() for folder in folders]
    of_a_run = path.name == _FILE and (path.parent / "config.json").is_file()
    if of_a_run and runs != [path.parent.resolve()]:
        raise ValueError(
            f"{path} is the place of that run's own report; give another --output=FILE."
        )
    if path.is_file() and not is_report(path):
        raise ValueError(
            f"{path} is there and no report of this program; expected the name of a new file, or "
            "of a report that may be replaced. Give another --output=FILE."
        )


def _own(path: pathlib.Path) -> contextlib.AbstractContextManager:
    """Keeps others out of the run in whose folder a file lies, if it lies in any."""
    for folder in path.parents:
        if (folder / "config.json").is_file():
            return held(folder, "write the report elsewhere: --output=FILE")
    return contextlib.nullcontext()
