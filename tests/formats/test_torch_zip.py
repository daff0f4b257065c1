"""Checkpoints as PyTorch writes them: read back by what a pickle says, without PyTorch."""

import pickle

import numpy as np
import pytest

from mq_jax.formats.torch_zip import pickled, save_state_dict
from mq_jax.tensorfiles.torch_file import open_torch

ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "a.bias": np.float32([1.5, -2]),
    "b": np.float32(3).reshape(()),
}


def test_a_checkpoint_holds_the_arrays_under_state_dict(tmp_path):
    save_state_dict(tmp_path / "model.ckpt", ARRAYS)
    held = []

    def choose(content):
        held.extend(content)
        return content["state_dict"]

    refusal = "It names {}, which no state dict does."
    with open(tmp_path / "model.ckpt", "rb") as file:
        with open_torch(file, choose, refusal=refusal) as arrays:
            found = arrays.read(list(arrays.shapes))
    assert held == ["state_dict"] and list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].shape == array.shape and found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def test_equal_arrays_make_equal_files(tmp_path):
    for name in ("a", "b"):
        save_state_dict(tmp_path / name, ARRAYS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "value",
    [True, False, 0, -1, 2**40, "", "é", (), (1,), ("a", (2, False)), {}, {"a": {"b": (1,)}}],
)
def test_a_pickle_is_what_python_reads_of_it(value):
    found = pickle.loads(pickled(value))
    assert found == value and type(found) is type(value)


def test_what_has_no_opcodes_is_refused():
    with pytest.raises(TypeError, match="float has no opcodes"):
        pickled(1.5)
