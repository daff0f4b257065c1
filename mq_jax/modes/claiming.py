"""The folder of a training: claimed for its configuration, held, and kept to its data."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping

import jax
from absl import logging
from ml_collections import ConfigDict

from mq_jax.data.contents import Contents
from mq_jax.devices.agreement import together
from mq_jax.devices.environment import environment
from mq_jax.modes.unchanged import keep_to_data, tell_data
from mq_jax.runs import workdir
from mq_jax.runs.differing import FREE_FIELDS
from mq_jax.storage.files import write_atomically
from mq_jax.storage.joint_lock import held_together
from mq_jax.terminal import console


@contextlib.contextmanager
def claimed(
    config: ConfigDict,
    folder: pathlib.Path,
    contents_of: Callable[[], Mapping[str, Contents]],
    *,
    accept: bool,
) -> Iterator[None]:
    """A block in which the folder is this run's own, and its log is written there.

    Args:
      config: validated.
      folder: of the run.
      contents_of: called once the folder is claimed; tells the data by use.
      accept: whether a run may go on with other data than it began with.

    Raises:
      ValueError: the folder is another run's, the data has changed, or another process writes
        there.
      OSError: it cannot be written.
    """
    first = jax.process_index() == 0
    with together():
        if first:
            workdir.require_writable(folder)
    with held_together(folder, "give another --workdir"):
        with together():
            if first:
                workdir.claim(folder, config.to_dict(), FREE_FIELDS)
        contents = contents_of()
        with together():
            if first:
                told = keep_to_data(folder, contents, accept=accept)
                text = json.dumps(environment(), indent=2) + "\n"
                write_atomically(folder / "environment.json", text)
                console.log_to_file(folder / "train.log")
                if told:
                    logging.warning("%s", told)
        tell_data(contents)
        yield
