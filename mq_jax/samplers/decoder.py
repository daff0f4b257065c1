"""Which tokenizer turns a prior's tokens into images: the one that made them, and no other."""

import os

from ml_collections import ConfigDict

from mq_jax.devices.places import local_path
from mq_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mq_jax.tokensets.manifest import MANIFEST

_REMEDY = "say where it lies: --tokenizer=FOLDER, in Python tokenizer=, an export or a run"


def find_tokenizer(
    config: ConfigDict, fingerprint: str, given: str | os.PathLike | None
) -> Tokenizer:
    """Loads the tokenizer of a prior's tokens.

    Args:
      config: of the prior's run; where it names a tokenizer, that is taken.
      fingerprint: of the one that made the tokens.
      given: where it lies; None: as the configuration says.

    Returns:
      A Tokenizer of this fingerprint.

    Raises:
      FileNotFoundError: it is not there, or nothing says where.
      ValueError: it is another one, or damaged.
    """
    place = local_path(config.tokens if given is None else given, "The tokenizer")
    named = f"the tokenizer {fingerprint[:16]}..., which made the prior's tokens"
    if (place / MANIFEST).is_file():
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
