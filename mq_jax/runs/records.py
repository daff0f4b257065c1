"""Small JSON files of a run's folder: written whole, read where they are there."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mq_jax.storage.files import write_atomically
from mq_jax.storage.schema import read_json


def write_record(path: pathlib.Path, record: NamedTuple) -> None:
    """Writes the fields of a record, whole or not at all.

    Args:
      path: of the file.
      record: replaces what is there.
    """
    write_atomically(path, json.dumps(record._asdict(), indent=2) + "\n")


def read_record(
    path: pathlib.Path, schema: Mapping[str, Any], remedy: str = "remove it"
) -> dict[str, Any] | None:
    """Reads a record.

    Args:
      path: of the file.
      schema: of its fields, as schema.read_json's.
      remedy: what to do beside putting a damaged file back.

    Returns:
      Its fields; None where there is no such file.

    Raises:
      ValueError: it is damaged, or cannot be read.
    """
    try:
        return read_json(path, schema)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Put it back, or {remedy}.") from error
