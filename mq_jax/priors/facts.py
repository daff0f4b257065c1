"""What a run knows of its tokens, so that its prior can be used where the token set is gone."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

from mq_jax.generation.space import TokenSpace
from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import SHA256, TEXT, check, read_json, whole

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

    @property
    def told(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        names = list(self.class_names)
        return {**self._asdict(), "space": dataclasses.asdict(self.space), "class_names": names}


def write_facts(folder: pathlib.Path, facts: TokenFacts) -> None:
    """Writes `tokens.json`.

    Args:
      folder: of the run.
      facts: from spaces.facts_of.

    Raises:
      OSError: it cannot be written.
    """
    write_atomically(folder / FILE, json.dumps(facts.told, indent=1) + "\n")


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
        return facts_from(read_json(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} does not exist, which says what the prior's tokens are; {remedy}."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}.") from error


def facts_from(told: Any) -> TokenFacts:
    """The facts out of JSON.

    Args:
      told: as TokenFacts.told; of any origin.

    Returns:
      A TokenFacts.

    Raises:
      ValueError: one of them is missing or out of range, or they do not agree.
    """
    check(told, _SCHEMA)
    space = TokenSpace(**{name: told["space"][name] for name in _SPACE})
    if len(told["class_names"]) != space.classes:
        raise ValueError(f"it names {len(told['class_names'])} of {space.classes} classes")
    return TokenFacts(space, told["tokenizer"], told["downsampling"], tuple(told["class_names"]))
