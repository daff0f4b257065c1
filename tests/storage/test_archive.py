"""Archives of arrays: read bit for bit, refused in one line, never larger than what was allowed."""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from mq_jax.storage.archive import Stored, array_names, array_shape, read_arrays, read_rows

ARRAYS = {
    "names": np.array(["a", "é", ""]),
    "numbers": np.arange(24, dtype=">f4").reshape(2, 3, 4),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "none": np.zeros((0, 3), np.uint8),
    "one": np.array(7),
}
EXPECTED = {name: Stored(array.dtype.kind, array.ndim) for name, array in ARRAYS.items()}


def archive(arrays=ARRAYS, save=np.savez_compressed):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def with_member(header, data=b""):
    """An archive of one array `x` under a header of one's own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as stored:
        text = header.encode() + b"\n"
        stored.writestr(
            "x.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
        )
    return file.getvalue()


def header(shape, descr="'<f4'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_bit_for_bit_and_can_be_written_to(tmp_path, save):
    (tmp_path / "a.npz").write_bytes(archive(save=save))
    for source in (tmp_path / "a.npz", str(tmp_path / "a.npz"), archive(save=save)):
        found = read_arrays(source, EXPECTED)
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            np.testing.assert_array_equal(found[name], array)
            assert found[name].flags.writeable


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"other": Stored("f", 1)}, "it has no array 'other'"),
        ({"numbers": Stored("iu", 3)}, r"numbers is >f4\[2, 3, 4\]; expected 3 axes and .* i or u"),
        ({"numbers": Stored("f", 2)}, "expected 2 axes"),
    ],
)
def test_other_arrays_are_refused(expected, message):
    with pytest.raises(ValueError, match=message):
        read_arrays(archive(), expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "it is no whole .npz file: File is not"),
        (archive()[:-30], "zip"),
        (with_member(header((3,))), r"x is float32\[3\], and has 0 bytes"),
        (with_member(header((-1,)), b"1234"), "x is float32"),
        (with_member(header((10**15,)), b"1234"), "and has 4 bytes"),
        (with_member(header((10**30, 0))), "expected 1 axes"),
        (with_member(header((10**15,), "'<U0'")), "x is <U0"),
        (with_member(header((1,), "'|O'"), b"12345678"), "it holds objects"),
        (with_member("(" * 9000), "header"),
        (with_member("{" + "[" * 9000), "header"),
        (with_member("__import__('os').system('false')"), "header"),
        (with_member(header((1,), "'<U1'"), b"\xff\xff\xff\x7f"), "x is no text"),
    ],
)
def test_damaged_and_hostile_archives_are_refused_in_one_line(source, message):
    with pytest.raises(ValueError, match=message) as error:
        read_arrays(source, {"x": Stored("fU", 1)})
    assert "\n" not in str(error.value)


def test_what_a_member_declares_is_held_against_the_limit_before_it_is_read(tmp_path):
    """20 GB of zeros in a file of a megabyte and a half, as one array of many."""
    many = {f"x{i}": np.zeros(1 << 20, np.uint8) for i in range(20)}
    (tmp_path / "bomb.npz").write_bytes(archive(many))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 16
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"have 20,9\d\d,\d\d\d bytes; expected at most 10,000,000"
    ):
        read_arrays(tmp_path / "bomb.npz", dict.fromkeys(many, Stored("u", 1)), most=10**7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert len(read_arrays(tmp_path / "bomb.npz", {"x3": Stored("u", 1)}, most=2 << 20)) == 1


def test_a_member_that_declares_less_than_it_has_is_refused():
    data = bytearray(archive({"x": np.zeros(1 << 16, np.float32)}))
    # The uncompressed size, in the local header and in the directory, as a liar writes it.
    size = (4 * (1 << 16) + 128).to_bytes(4, "little")
    lie = (4 * 100 + 128).to_bytes(4, "little")
    with pytest.raises(ValueError):
        read_arrays(bytes(data).replace(size, lie), {"x": Stored("f", 1)})


def test_a_huge_file_and_a_pipe_are_not_read(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(archive())
    os.truncate(path, 3 << 30)
    with pytest.raises(ValueError, match="it has 3,221,225,472 bytes; expected at most"):
        read_arrays(path, EXPECTED)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="a FIFO; expected a regular file"):
        read_arrays(tmp_path / "pipe", EXPECTED)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "absent.npz", EXPECTED)


def test_no_flipped_bit_raises_anything_else_or_changes_an_array():
    whole, rng = archive(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            found = read_arrays(bytes(data), EXPECTED)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            for name, array in ARRAYS.items():
                np.testing.assert_array_equal(found[name], array)
    assert refused > 200


NUMBERS = EXPECTED["numbers"]


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_rows_are_read_a_part_at_a_time(rows):
    data = archive()
    assert array_names(data) == list(ARRAYS)
    assert array_shape(data, "numbers", NUMBERS) == (2, 3, 4)
    parts = list(read_rows(data, "numbers", NUMBERS, rows))
    assert [len(part) for part in parts] == [min(rows, 2)] * len(parts)
    np.testing.assert_array_equal(np.concatenate(parts), ARRAYS["numbers"])
    assert list(read_rows(data, "none", EXPECTED["none"], rows)) == []


def test_rows_that_lie_apart_or_are_none_are_refused():
    for name in ("columns", "one"):
        with pytest.raises(ValueError, match=f"{name} has no rows that lie one after another"):
            array_shape(archive(), name, EXPECTED[name])


def test_a_damaged_row_is_told_once_it_is_reached_in_one_line():
    array = np.random.default_rng(0).integers(0, 256, (8, 2**16), np.uint8)
    data = bytearray(archive({"x": array}, np.savez))
    data[data.index(array[6].tobytes())] ^= 1
    parts = read_rows(bytes(data), "x", Stored("u", 2), 4)
    np.testing.assert_array_equal(next(parts), array[:4])
    with pytest.raises(ValueError, match="no whole .npz file: Bad CRC"):
        next(parts)


def test_more_bytes_than_are_allowed_are_refused_before_any_is_read():
    with pytest.raises(ValueError, match="numbers has 224 bytes; expected at most 100"):
        next(read_rows(archive(), "numbers", NUMBERS, 1, most=100))
