"""Places that a person names: folders and files of this machine, and no others."""

import os
import pathlib
import re

# Also as pathlib writes it, with one slash.
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def local_path(place: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of a place on this machine, `~` expanded.

    Args:
      place: as a person gave it.
      name: of what it is, as the error begins: "--workdir", say.

    Returns:
      A path; nothing need be there.

    Raises:
      ValueError: the place is an address, SCHEME://..., or below a home folder that is not known.
    """
    text = os.fspath(place)
    if _ELSEWHERE.match(text):
        raise ValueError(
            f"{name} is {text!r}, an address; expected a path of this machine. Mount it or copy "
            "it here; a local folder of such a name is given by its absolute path."
        )
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name} is {text!r}, but this user has no home folder: HOME is not set, and the "
            "system knows none. Set HOME, or give an absolute path."
        ) from error
