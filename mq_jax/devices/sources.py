"""The sources that this program began with, and whether they are still the ones on disk."""

import functools
import hashlib
import pathlib

_PACKAGE = pathlib.Path(__file__).parents[1]


@functools.cache
def note_sources() -> str:
    """A digest of this program's modules, taken once.

    To be called before they are imported: what is written later is not what runs.

    Returns:
      Of their names and contents; "" where they are not files that can be read.
    """
    return _digest()


def noted_sources() -> str:
    """That digest, while it is true.

    Returns:
      As note_sources; "" where nobody has noted them, or somebody has changed them since.
    """
    noted = note_sources.cache_info().currsize and note_sources()
    return noted if noted and noted == _digest() else ""


def _digest():
    digest = hashlib.sha256()
    try:
        # An editor's lock is a link to nothing.
        paths = sorted(path for path in _PACKAGE.rglob("*.py") if path.is_file())
        for path in paths:
            digest.update(f"{path.relative_to(_PACKAGE)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError:
        return ""
    return digest.hexdigest() if paths else ""
