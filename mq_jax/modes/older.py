"""Going on with a run that is older than some fields of the configuration."""

import pathlib
from collections.abc import Collection

import jax
from absl import logging
from ml_collections import ConfigDict

from mq_jax.runs import workdir


def take_over(config: ConfigDict, folder: pathlib.Path, typed: Collection[str]) -> None:
    """Sets the fields that a run does not know to what was done without them, and says so.

    Args:
      config: the experiment; changed.
      folder: of the run, or of none yet.
      typed: dotted names of fields that a person gave, which stay as they are given.

    Raises:
      ValueError: the run's config.json is damaged.
    """
    adopted = workdir.adopted(folder).items()
    fields = {name: value for name, value in adopted if name not in typed}
    config.update_from_flattened_dict(fields)
    if fields and jax.process_index() == 0:
        told = ", ".join(f"{name} = {value!r}" for name, value in fields.items())
        logging.info("This run is older than some fields of the configuration: %s", told)
