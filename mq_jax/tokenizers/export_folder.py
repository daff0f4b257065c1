"""The folder of an export: filled beside, it takes its name at once; no other model is lost."""

import contextlib
import hashlib
import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Of a run.
FOLDER = "export"


@contextlib.contextmanager
def appearing(
    folder: pathlib.Path, fingerprint: str, read: Callable, *, overwrite: bool
) -> Iterator[pathlib.Path]:
    """A place for the files of an export, which takes its name when the block ends well.

    Args:
      folder: `export` of a run, by custom.
      fingerprint: of the model.
      read: of an export that is there, something with its `fingerprint`.
      overwrite: whether an export of another model that is there may go.

    Yields:
      The folder to write into.

    Raises:
      ValueError: the folder is there and holds another model, or something else.
      OSError: it cannot be written.
    """
    if folder.exists() and not overwrite:
        _require_same(folder, fingerprint, read)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    # Of a killed process of the same number, as containers have them.
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        _give_name(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def nothing_exported(path: pathlib.Path, kind: str) -> FileNotFoundError:
    """The error of a place that has no export; says how to make one.

    Args:
      path: of the place.
      kind: of what is missing, one of tensors.KEYS.

    Returns:
      The error.
    """
    if not path.exists():
        return FileNotFoundError(f"{path} does not exist; expected an exported {kind}.")
    command = f"python -m mq_jax.main --mode=export --workdir={shlex.quote(str(path))}"
    hint = f"make one: {command}" if (path / "config.json").is_file() else "it is no run either"
    return FileNotFoundError(f"{path} has no exported {kind}; {hint}.")


def write_card(folder: pathlib.Path, card: Mapping[str, Any], page: str) -> None:
    """Writes the model card.

    Args:
      folder: of the export.
      card: fit for JSON.
      page: the same as Markdown.

    Raises:
      OSError: it cannot be written.
    """
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page, encoding="utf-8", errors="backslashreplace")


def inventory(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every file, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }


def _give_name(temporary, folder):
    """The folder's name for the new export; what had it goes last, or gets it back."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    had_one = folder.exists()
    if had_one:
        folder.rename(old)
    try:
        temporary.rename(folder)
    except BaseException:
        if had_one:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _require_same(folder, fingerprint, read):
    """An export of the same model may be written again; nothing else is lost unasked."""
    try:
        found = read(folder).fingerprint
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} exists and holds no whole export ({error}). Move it away, or replace it: "
            "--overwrite."
        ) from error
    if found != fingerprint:
        raise ValueError(
            f"{folder} holds another model, of fingerprint {found[:16]}... (this one: "
            f"{fingerprint[:16]}...). Move it away, or replace it: --overwrite."
        )
