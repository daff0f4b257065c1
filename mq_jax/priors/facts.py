"""What a run knows of its tokens, so that its prior can be used where the token set is gone."""

import dataclasses
import json
import pathlib
from typing import NamedTuple

from mq_jax.generation.space import TokenSpace
from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import SHA256, TEXT, read_json, whole

FILE = "tokens.json"

_SPACE = {
    **{name: whole(1, 2**16) for name in ("height", "width", "levels")},
    "size": whole(2, 2**32),
    "classes": whole(0, 2**32),
}
_SCHEMA = {
    "space": _SPACE,
    "tokenizer": SHA256,
    "downsampling": whole(1, 2**16),
    "class_names": [TEXT],
}


class TokenFacts(NamedTuple):
    """What tokens a prior is of.

    Attributes:
      space: theirs.
      tokenizer: fingerprint of the one that made them, which alone decodes them.
      downsampling: pixels to a code, along one side.
      class_names: of the classes that the prior knows.
    """

    space: TokenSpace
    tokenizer: str
    downsampling: int
    class_names: tuple[str, ...]


def write_facts(folder: pathlib.Path, facts: TokenFacts) -> None:
    """Writes `tokens.json`.

    Args:
      folder: of the run.
      facts: from spaces.facts_of.

    Raises:
      OSError: it cannot be written.
    """
    told = facts._asdict() | {"space": dataclasses.asdict(facts.space)}
    write_atomically(folder / FILE, json.dumps(told, indent=1) + "\n")


def read_facts(folder: pathlib.Path) -> TokenFacts:
    """Reads `tokens.json`.

    Args:
      folder: of the run of a prior.

    Returns:
      A TokenFacts.

    Raises:
      FileNotFoundError: there is none; says who writes it.
      ValueError: it is damaged.
    """
    path, remedy = folder / FILE, "the training command, given again, writes it"
    try:
        found = read_json(path, _SCHEMA)
        space = TokenSpace(**{name: found["space"][name] for name in _SPACE})
        if len(found["class_names"]) != space.classes:
            raise ValueError(f"it names {len(found['class_names'])} of {space.classes} classes")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} does not exist, which says what the prior's tokens are; {remedy}."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}.") from error
    names = tuple(found["class_names"])
    return TokenFacts(space, found["tokenizer"], found["downsampling"], names)
