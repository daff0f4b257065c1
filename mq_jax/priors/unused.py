"""Fields of a prior that a person gave and that other fields leave without effect."""

import os

from mq_jax.tokensets.manifest import is_token_set
from mq_jax.training.unused import SHARED, Overruled

_OF_IMAGES = ("source", "dir", "train_split", "holdout", "views", "image_column", "label_column")
_OF_READING = ("max_bad_share", "max_pixels", "max_bytes")

RULES: tuple[Overruled, ...] = (
    *SHARED,
    Overruled(("prior.smoothing",), "prior.kind", lambda kind: kind != "masked", "masked reads it"),
    Overruled(
        ("prior.class_dropout",),
        "prior.conditional",
        lambda conditional: not conditional,
        "True reads it",
    ),
    Overruled(
        tuple(f"data.{name}" for name in (*_OF_IMAGES, *_OF_READING, "eval_split")),
        "tokens",
        lambda tokens: bool(tokens) and is_token_set(os.path.expanduser(tokens)),
        "the folder of a tokenizer, not of a token set, reads it",
    ),
    Overruled(("data.eval_split",), "eval_tokens", bool, "without that set it is read"),
)
