"""What Flax writes, read within limits, and what others might put there."""

import io

import ml_dtypes
import msgpack
import numpy as np
import pytest
from flax import serialization

from mq_jax.tensorfiles.msgpack_file import begins_as_msgpack, open_msgpack

TREE = {
    "step": 3,
    "params": {
        "layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "half": np.array([1.5, -2], ml_dtypes.bfloat16),
        "scalar": np.float32(0.5),
    },
    "names": ["a", "b"],
}


def opened(data):
    return open_msgpack(io.BytesIO(data))


def test_arrays_and_scalars_are_found_by_the_keys_above_them():
    with opened(serialization.to_bytes(TREE)) as arrays:
        assert arrays.shapes == {
            "params.layer.kernel": (2, 3),
            "params.half": (2,),
            "params.scalar": (),
        }
        found = arrays.read(list(arrays.shapes))
    np.testing.assert_array_equal(found["params.layer.kernel"], TREE["params"]["layer"]["kernel"])
    assert found["params.half"].tolist() == [1.5, -2] and found["params.half"].dtype == "bfloat16"
    assert found["params.scalar"] == 0.5


def test_it_is_told_from_a_pickle_by_its_first_byte():
    assert begins_as_msgpack(io.BytesIO(serialization.to_bytes(TREE)))
    for other in (b"", b"\x80\x02}q\x00.", b"PK\x03\x04", b"(dp0\n."):
        assert not begins_as_msgpack(io.BytesIO(other))


def test_a_file_of_more_bytes_than_any_net_is_not_read():
    class Large(io.BytesIO):
        def seek(self, *_):
            return 2**31 + 1

    with pytest.raises(ValueError, match="it has 2,147,483,649 bytes; expected at most"):
        with open_msgpack(Large()):
            pass


def array(shape=(2,), dtype="float32", data=bytes(8)):
    """A dict with one array, as it is declared."""
    packed = msgpack.packb((shape, dtype, data))
    return msgpack.packb({"a": msgpack.ExtType(1, packed)})


def nested(depth):
    return b"\x81\xa1a" * depth + b"\x80"


REFUSED = {
    "a truncated file": (serialization.to_bytes(TREE)[:-1], "incomplete input"),
    "bytes behind the end": (array() + b"\x00", "extra data"),
    "too few bytes of an array": (array(data=bytes(4)), r"an array of \(2,\) has 4 bytes"),
    "a shape below 0": (array(shape=(-1, -2)), "no known kind"),
    "a shape of lists": (array(shape=((1,), 2)), "no known kind"),
    "a dtype of objects": (array(dtype="object"), "no known kind"),
    "a dtype that is a list": (array(dtype=["f4"]), "no known kind"),
    "an array that is none": (msgpack.packb({"a": msgpack.ExtType(1, b"\xc0")}), "no whole file"),
    "a name that occurs twice": (b"\x82\xa1a\x01\xa1a\x02", "a name occurs twice"),
    "a name that is a number": (b"\x81\x01\x02", "strict_map_key"),
    "more entries than any net": (msgpack.packb({"a": [[0] * 2**15] * 3}), "65,536 entries"),
    "a list longer than the file": (b"\x81\xa1a\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
    "dicts within dicts": (nested(100), "nested more than 32 deep"),
    "dicts without end": (nested(10_000), "no whole file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_for(case):
    data, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"^no whole file of Flax's arrays .*{message}|{message}"):
        with opened(data):
            pass
