"""Checks of a configuration of either stage."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from mq_jax.priors import fields, unused
from mq_jax.runs.stages import is_prior
from mq_jax.training import consistency
from mq_jax.training import unused as unused_of_first
from mq_jax.training import validate as fields_of_first


def validate(config: ConfigDict) -> None:
    """As training.validate.validate or priors.fields.validate.

    Args:
      config: of either stage.

    Raises:
      ValueError: names the field, its value and the possible ones.
    """
    (fields if is_prior(config) else fields_of_first).validate(config)


def require_trainable(config: ConfigDict) -> None:
    """As training.consistency.require_trainable, of which no prior has anything.

    Args:
      config: of either stage, validated.

    Raises:
      ValueError: names the fields, their values and what to change.
    """
    if not is_prior(config):
        consistency.require_trainable(config)


def unused_fields(config: ConfigDict, given: Iterable[str]) -> list[str]:
    """What of the given fields changes nothing.

    Args:
      config: of either stage; it need not be validated yet.
      given: dotted names.

    Returns:
      As training.unused.unused_fields.
    """
    rules = unused.RULES if is_prior(config) else unused_of_first.RULES
    return unused_of_first.unused_fields(config, given, rules)
