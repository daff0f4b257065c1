"""The bytes of files of published weights."""

import pathlib

from mq_jax.storage.files import read_bytes

# The largest of the published files has 95 million.
MOST_BYTES = 2**28


def content(path: pathlib.Path) -> bytes:
    """The bytes of a file of weights, whose hash is not looked at yet.

    Args:
      path: of the file.

    Returns:
      All of them.

    Raises:
      OSError: it cannot be read.
      ValueError: it is too large to be a published one, or no regular file.
    """
    try:
        return read_bytes(path, MOST_BYTES)
    except ValueError as error:
        raise ValueError(f"{path} holds no published weights: {error}.") from error
