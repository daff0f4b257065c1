"""Parquet files: every image is found as pyarrow reads it, whatever wrote the pages."""

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_files import png, write_parquet

from mq_jax.containers.extents import read_extent, stacked
from mq_jax.containers.parquet import BY_TYPE, Columns, class_names, parquet_extents


def _values(seed, count=60):
    """Byte arrays of photographs' kind and others: repeated, empty, null, easy to compress."""
    rng = np.random.default_rng(seed)
    noise = [rng.bytes(int(rng.integers(1, 30_000))) for _ in range(count - 8)]
    flat = [b"\xff" * 70_000, noise[0], b"abc" * 9_000, b"", noise[1] * 3]
    rows = [*noise, None, *flat, None, noise[0]]
    return [rows[i] for i in rng.permutation(len(rows))]


def _read(path, columns=BY_TYPE):
    extents = stacked(parquet_extents(path, columns))
    return [
        None if place[1] < 0 else read_extent(path, place, 0) for place in extents.places
    ], extents


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"compression": codec} for codec in ("none", "gzip", "zstd", "lz4")),
        {"compression": "brotli", "compression_level": 1},
        {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 20_000},
        {"compression": "none", "data_page_version": "2.0", "use_dictionary": False},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"row_group_size": 7, "data_page_size": 20_000},
        {"use_dictionary": False, "data_page_version": "2.0", "data_page_size": 20_000},
        {"use_content_defined_chunking": True, "write_page_index": True},
        {"dictionary_pagesize_limit": 100_000, "write_batch_size": 4},
        {"write_statistics": True, "write_page_checksum": True, "version": "1.0"},
    ],
    ids=str,
)
def test_every_value_is_found_whoever_wrote_the_pages(tmp_path, options):
    values = _values(0)
    table = pa.table({"image": pa.array(values, pa.binary()), "label": range(len(values))})
    pq.write_table(table, tmp_path / "a.parquet", **options)
    read, extents = _read(tmp_path / "a.parquet")
    assert read == values
    assert [int(label) for label in extents.labels] == list(range(len(values)))


def test_the_hubs_columns_have_the_bytes_in_a_struct_with_their_names(tmp_path):
    values = [b"one", None, b"two" * 50_000, b"three"]
    path = write_parquet(tmp_path / "a.parquet", values, [3, 1, None, -1], names="abcd")
    read, extents = _read(path)
    assert read == values
    assert extents.names.tolist() == [b"0.png", b"", b"2.png", b"3.png"]
    assert extents.labels.tolist() == [b"3", b"1", b"", b"-1"]
    assert class_names(path, BY_TYPE) == ("a", "b", "c", "d")


def test_an_image_costs_its_neighbourhood_and_not_its_row_group(tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.bytes(20_000) for _ in range(200)]
    path = write_parquet(tmp_path / "a.parquet", values)
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size > 4_000_000
    sizes = stacked(parquet_extents(path, BY_TYPE)).places[:, 1]
    assert max(sizes) < 3 * 2**16


def test_columns_are_chosen_by_name_or_type(tmp_path):
    table = pa.table(
        {
            "id": [7, 8],
            "thumbnail": [b"t", b"u"],
            "image": [b"a", b"b"],
            "kind": ["cat", "dog"],
            "score": [0.5, 0.25],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    read, extents = _read(tmp_path / "a.parquet")
    assert read == [b"a", b"b"] and set(extents.labels) == {b""}
    read, extents = _read(tmp_path / "a.parquet", Columns("thumbnail", "kind"))
    assert read == [b"t", b"u"] and extents.labels.tolist() == [b"cat", b"dog"]
    for columns, told in (
        (Columns("picture"), "image_column is 'picture'; .*: thumbnail, image; all: id, "),
        (Columns("score"), "image_column is 'score'"),
        (Columns(label="score"), "label_column is 'score'; columns of numbers or names: id, kind"),
    ):
        with pytest.raises(ValueError, match=told):
            _read(tmp_path / "a.parquet", columns)


def test_an_encoding_that_is_not_read_is_told_with_what_to_do(tmp_path):
    table = pa.table({"image": [b"a", b"b"]})
    options = {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}}
    pq.write_table(table, tmp_path / "a.parquet", **options)
    with pytest.raises(ValueError, match="encoding 7; expected PLAIN or a dictionary.* anew"):
        _read(tmp_path / "a.parquet")


@pytest.mark.parametrize("options", [{}, {"compression": "none"}, {"data_page_version": "2.0"}])
def test_a_damaged_file_is_refused_or_its_bytes_are_others_but_nothing_else_happens(
    tmp_path, options
):
    path = write_parquet(tmp_path / "a.parquet", [png(i, 40) for i in range(9)], **options)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(whole))] if rng.random() < 0.1 else damaged)
        try:
            extents = stacked(itertools.islice(parquet_extents(path, BY_TYPE), 1000))
        except ValueError:
            continue
        for place in extents.places:
            try:
                read_extent(path, place, 0)
            except ValueError:
                continue


@pytest.mark.parametrize("kind", ["text", "fifo", "nothing"])
def test_what_is_no_parquet_file_is_refused(tmp_path, kind):
    path = tmp_path / "a.parquet"
    if kind == "text":
        path.write_text("PAR1 but not more")
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(ValueError, match="a.parquet cannot be read"):
        _read(path)
