"""Which tokenizer turns a prior's tokens into images: the one that made them, and no other."""

import os

from mq_jax.devices.places import local_path
from mq_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mq_jax.tokensets.manifest import is_token_set

_REMEDY = "say where it lies: --tokenizer=FOLDER, in Python tokenizer=, an export or a run"


def find_tokenizer(place: str | os.PathLike, fingerprint: str) -> Tokenizer:
    """Loads the tokenizer of a prior's tokens.

    Args:
      place: where it lies; "" where nobody says it.
      fingerprint: of the one that made the tokens.

    Returns:
      A Tokenizer of this fingerprint.

    Raises:
      FileNotFoundError: it is not there, or nothing says where.
      ValueError: it is another one, or damaged.
    """
    named = f"the tokenizer {fingerprint[:16]}..., which made the prior's tokens"
    if not os.fspath(place):
        raise FileNotFoundError(
            f"The export of a prior does not say where its tokenizer lies. Of {named}, {_REMEDY}."
        )
    place = local_path(place, "The tokenizer")
    if is_token_set(place):
        raise FileNotFoundError(
            f"{place} is a token set, which does not say where its tokenizer lies. Of {named}, "
            f"{_REMEDY}."
        )
    try:
        tokenizer = load_tokenizer(place)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Of {named}, {_REMEDY}.") from error
    if tokenizer.fingerprint != fingerprint:
        raise ValueError(
            f"{place} has the tokenizer {tokenizer.fingerprint[:16]}..., not {named}: what it made "
            f"of them would mean nothing; {_REMEDY}."
        )
    return tokenizer
