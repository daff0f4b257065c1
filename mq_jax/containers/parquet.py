"""Parquet files in the hub's layout: where their images lie, and which classes they have."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from mq_jax.containers.extents import Extent
from mq_jax.containers.footer import column_chunks
from mq_jax.containers.pages import byte_array_places
from mq_jax.devices.reading import open_regular

_USUAL_IMAGES = ("image", "img", "jpg", "png", "webp")
_USUAL_LABELS = ("label", "labels", "cls")


class Columns(NamedTuple):
    """Which columns of a file are read.

    Attributes:
      image: its name; "": the one that can hold images, of several the one called `image`.
      label: its name; "": the first that the hub calls a ClassLabel, else the one called `label`.
    """

    image: str = ""
    label: str = ""


BY_TYPE = Columns()


def parquet_extents(path: pathlib.Path, columns: Columns) -> Iterator[Extent]:
    """Finds the images of a file.

    Args:
      path: of the file.
      columns: which of it.

    Yields:
      The extent of each row's image, in order; one without has size -1.

    Raises:
      ValueError: the file is damaged, has no such column or no images.
    """
    # Imported here: a second that only these files need.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path) as file, pq.ParquetFile(file) as parquet:
            image, name = _image_column(parquet.schema_arrow, columns.image)
            label = _label_column(parquet.schema_arrow, columns.label, image)
            texts = [column for column in (name, label) if column]
            levels = _levels(parquet.schema, image)
            for group, chunk in enumerate(column_chunks(file.fileno(), image, levels)):
                told = _texts(parquet, group, texts)
                for row, place in enumerate(byte_array_places(chunk)):
                    own = (told[column][row] if column else "" for column in (name, label))
                    yield Extent(*place, *own)
    # A damaged file is any of these.
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
        raise _unreadable(path, error) from error


def class_names(path: pathlib.Path, columns: Columns) -> tuple[str, ...]:
    """The names of the classes, as the hub writes them into the schema of a file.

    Args:
      path: of the file.
      columns: which of it.

    Returns:
      The names in the order of the labels; empty where there are none.

    Raises:
      ValueError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path) as file:
            schema = pq.read_schema(file)
            image, _ = _image_column(schema, columns.image)
            return _hub_classes(schema).get(_label_column(schema, columns.label, image), ())
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from error


def _image_column(schema: Any, wanted: str) -> tuple[str, str]:
    """The leaf with the bytes of the images, and the one with their names, "" where none is."""
    import pyarrow.types as types

    def binary(kind):
        return types.is_binary(kind) or types.is_large_binary(kind)

    leaves = {}
    for field in schema:
        if binary(field.type):
            leaves[field.name] = (field.name, "")
        elif types.is_struct(field.type):
            inner = {each.name: each.type for each in field.type}
            if "bytes" in inner and binary(inner["bytes"]):
                named = "path" in inner and types.is_string(inner["path"])
                leaves[field.name] = (f"{field.name}.bytes", f"{field.name}.path" if named else "")
    usual = [name for name in _USUAL_IMAGES if name in leaves]
    chosen = wanted or (list(leaves) if len(leaves) == 1 else [*usual, ""])[0]
    if chosen not in leaves:
        raise ValueError(
            f"data.image_column is {wanted!r}; columns that can hold images, bytes or "
            f"{{bytes, path}}: {', '.join(leaves) or 'none'}; all: {', '.join(schema.names)}"
        )
    return leaves[chosen]


def _label_column(schema: Any, wanted: str, image: str) -> str:
    """The column of the labels, "" where there is none."""
    import pyarrow.types as types

    fit = [
        field.name
        for field in schema
        if types.is_integer(field.type) or types.is_string(field.type)
        if field.name != image
    ]
    if wanted and wanted not in fit:
        raise ValueError(
            f"data.label_column is {wanted!r}; columns of numbers or names: {', '.join(fit)}"
        )
    usual = [name for name in (*_hub_classes(schema), *_USUAL_LABELS) if name in fit]
    return wanted or next(iter(usual), "")


def _hub_classes(schema: Any) -> dict[str, tuple[str, ...]]:
    """The class names of each column that the hub calls a ClassLabel."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"]
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    # Of what anyone may have written there.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _texts(parquet: Any, group: int, columns: list[str]) -> dict[str, list[str]]:
    """The values of some columns of a row group as texts, "" for null."""
    if not columns:
        return {}
    table = parquet.read_row_group(group, columns=columns, use_threads=False).flatten()
    return {
        column: ["" if value is None else str(value) for value in table[column].to_pylist()]
        for column in columns
    }


def _levels(schema: Any, leaf: str) -> int:
    """The largest definition level of a column."""
    columns = [schema.column(number) for number in range(len(schema))]
    column = columns[[each.path for each in columns].index(leaf)]
    if column.max_repetition_level or column.physical_type != "BYTE_ARRAY":
        raise ValueError(f"column {leaf} is of {column.physical_type}, or repeats")
    return column.max_definition_level


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    """One line; pyarrow's own have several."""
    return ValueError(f"{path} cannot be read ({' '.join(str(error).split())}).")
