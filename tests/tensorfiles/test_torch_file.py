"""Files of PyTorch: read as they were written, refused where they were not, never run."""

import io
import os
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np
import pytest
from torch_files import Storage, Tensor, old_format, pickled, state_dict, zip_format

from mq_jax.tensorfiles.torch_file import open_torch, read_state_dict

REFUSAL = "it names {}, expected tensors alone"


FEW = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1),
    "a.num_batches_tracked": np.array(7),
    "b": np.float32([0.5, -1]),
}
FORMATS = pytest.mark.parametrize("written", [old_format, zip_format])


@FORMATS
def test_tensors_are_read_as_they_were_written(written):
    found = read_state_dict(written(FEW), REFUSAL)
    assert list(found) == list(FEW)
    for name, array in FEW.items():
        np.testing.assert_array_equal(found[name], array)


@FORMATS
def test_a_truncated_file_is_refused(written):
    data = written(FEW)
    for size in (0, 10, len(data) // 2, len(data) - 3):
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            read_state_dict(data[:size], REFUSAL)


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@FORMATS
def test_a_file_that_names_anything_but_tensors_is_refused_and_nothing_runs(written, tmp_path):
    target = tmp_path / "made"
    with mock.patch("torch_files.state_dict", lambda tensors: ({"a": Evil(target)}, [])):
        data = written({})
    pickle.loads(pickled({"a": Evil(target)}))
    assert target.exists()
    target.rmdir()
    with pytest.raises(pickle.UnpicklingError, match="names posix.mkdir, expected tensors alone"):
        read_state_dict(data, REFUSAL)
    assert not target.exists()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 2), (2, 1), 0),
        ((2,), (1,), 1),
        ((2,), (-1,), 0),
        ((5,), (-3,), 1),
        ((2,), (1,), -1),
        ((2**40,), (0,), 0),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(shape, strides, offset):
    storage = Storage("0", np.float32([1, 2]))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a/data.pkl", pickled({"x": Tensor(storage, shape, strides, offset)}))
        archive.writestr("a/data/0", storage.values.tobytes())
    with pytest.raises(ValueError, match="reaches past its 2 numbers"):
        read_state_dict(data.getvalue(), REFUSAL)


class Lightning:
    """What a training leaves in its checkpoint beside the tensors: called, filled and set."""

    __module__ = "trainer"

    def __init__(self):
        self.best, self.found = {"a": 1}, [2]

    def __reduce__(self):
        return type(self), (), self.__dict__, iter([3]), iter([("key", 4)])


def checkpoint(callback):
    """A file of Lightning's, with an object of a class that is nowhere installed."""
    described, storages = state_dict(FEW)
    trainer = types.ModuleType("trainer")
    trainer.Lightning = Lightning
    with mock.patch.dict(sys.modules, {"trainer": trainer}):
        whole = pickled({"epoch": 3, "callbacks": {"x": callback}, "state_dict": described})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", whole)
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.values.tobytes())
    return stream.getvalue()


def state_of(held):
    return held["state_dict"]


def test_classes_of_a_training_stand_for_nothing_and_their_modules_are_not_looked_for():
    data = checkpoint(Lightning())
    with open_torch(io.BytesIO(data), state_of) as arrays:
        assert dict(arrays.shapes) == {name: array.shape for name, array in FEW.items()}
        np.testing.assert_array_equal(arrays.read(["b"])["b"], FEW["b"])


def test_a_file_that_would_run_something_is_refused_though_its_tensors_are_there(tmp_path):
    data = checkpoint(Evil(tmp_path / "made"))
    with pytest.raises(pickle.UnpicklingError, match="posix.mkdir, .* nothing of it was run"):
        with open_torch(io.BytesIO(data), state_of):
            pass
    assert not (tmp_path / "made").exists()


def test_an_object_of_a_number_that_fills_the_memory_is_refused():
    bomb = b"\x80\x02}r\xff\xff\xff\x7f."
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a/data.pkl", bomb)
    with pytest.raises(ValueError, match="the object at byte 3 of a pickle is 2147483647"):
        read_state_dict(data.getvalue(), REFUSAL)


def test_a_compressed_member_is_refused():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickled({}))
    with pytest.raises(ValueError, match="a/data.pkl is compressed"):
        read_state_dict(data.getvalue(), REFUSAL)


def test_a_storage_that_is_truncated_is_told_when_it_is_read():
    data = old_format(FEW)[:-3]
    with open_torch(io.BytesIO(data), lambda held: held) as arrays:
        with pytest.raises(ValueError):
            arrays.read(["b"])
