"""The lock of a folder that several processes of one run write into."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from mq_jax.devices.agreement import together
from mq_jax.storage.lock import held


@contextlib.contextmanager
def held_together(folder: pathlib.Path, remedy: str) -> Iterator[None]:
    """As held, for all processes of a run, whose first one takes the folder.

    Args:
      folder: exists.
      remedy: as held's.

    Raises:
      ValueError: as held.
      OSError: as held.
      FailedElsewhere: the first process could not take it.
    """
    with contextlib.ExitStack() as holding:
        with together():
            if jax.process_index() == 0:
                holding.enter_context(held(folder, remedy))
        yield
