"""Archives that are written in parts: NumPy reads them, and equal arrays make equal bytes."""

import numpy as np
import pytest

from mq_jax.storage.archive_writing import Rows, write_archive


def images(parts):
    whole = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    return Rows(whole.shape, whole.dtype, np.array_split(whole, parts)), whole


def test_parts_become_what_numpy_saves(tmp_path):
    rows, whole = images(3)
    labels = np.arange(5)
    write_archive(tmp_path / "a.npz", {"arr_0": rows, "arr_1": Rows((5,), labels.dtype, [labels])})
    np.savez(tmp_path / "b.npz", whole, labels)
    with np.load(tmp_path / "a.npz") as here, np.load(tmp_path / "b.npz") as there:
        assert here.files == there.files
        for name in here.files:
            assert here[name].dtype == there[name].dtype
            np.testing.assert_array_equal(here[name], there[name])
    # However it came in parts.
    rows, _ = images(1)
    write_archive(tmp_path / "c.npz", {"arr_0": rows, "arr_1": Rows((5,), labels.dtype, [labels])})
    assert (tmp_path / "c.npz").read_bytes() == (tmp_path / "a.npz").read_bytes()


@pytest.mark.parametrize(
    ("shape", "parts", "message"),
    [
        ((5, 2), [np.zeros((3, 2)), np.zeros((1, 2))], "x has 4 rows; expected 5"),
        ((5, 2), [np.zeros((5, 3))], r"A part of x is float64\[5, 3\]; expected float64\[N, 2\]"),
        ((5, 2), [np.zeros((5, 2), int)], "A part of x is int64"),
    ],
)
def test_parts_that_make_another_array_leave_no_file(tmp_path, shape, parts, message):
    with pytest.raises(ValueError, match=message):
        write_archive(tmp_path / "x.npz", {"x": Rows(shape, np.dtype(float), parts)})
    assert not list(tmp_path.iterdir())
