"""JSON of any origin: what a schema refuses, where it says so, and the limits of size and depth."""

import json
import os

import pytest

from mq_jax.storage.schema import (
    AMOUNT,
    FLAG,
    MOST_DEPTH,
    NUMBER,
    TEXT,
    Each,
    Nullable,
    check,
    choice,
    fits,
    parse,
    read_json,
    whole,
)

SCHEMA = {
    "name": choice("a", "b"),
    "parts": [{"count": whole(1), "size": Nullable(AMOUNT)}],
    "metrics": Each(Nullable(NUMBER)),
    "note": Nullable(TEXT),
}
GOOD = {
    "name": "a",
    "parts": [{"count": 1, "size": None}],
    "metrics": {"mse": 0.5, "fid": None},
    "note": None,
}


@pytest.mark.parametrize("change", [{}, {"note": "n"}, {"parts": []}, {"other": [1]}])
def test_what_is_of_the_schema_is_read_as_it_is(change):
    assert parse(json.dumps(GOOD | change), SCHEMA) == GOOD | change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "c"}, r"^name is 'c'; expected one of a, b$"),
        ({"name": ["a"]}, r"^name is a list of 1; expected one of"),
        ({"name": None}, r"^name is None; expected"),
        ({"parts": {}}, r"^parts is an object of 0; expected a list$"),
        ({"parts": [3]}, r"^parts\[0\] is 3; expected an object$"),
        ({"parts": [{}]}, r"^parts\[0\] lacks count$"),
        ({"parts": [{"count": 0}]}, r"^parts\[0\].count is 0; expected a whole number of at"),
        ({"parts": [{"count": True}]}, r"count is True"),
        ({"parts": [{"count": 1.0}]}, r"count is 1\.0"),
        ({"parts": [{"count": 2**63}]}, r"count is 9223372036854775808"),
        ({"parts": [{"count": 1, "size": -1}]}, r"size is -1; expected a finite number of at"),
        ({"metrics": {"mse": float("nan")}}, r"^metrics\['mse'\] is nan; expected a finite number"),
        ({"metrics": {"\x1b[2J\n": "x"}}, r"^metrics\['\\x1b\[2J\\n'\] is 'x'"),
        ({"metrics": "y" * 10**6}, r"^metrics is 'y{56}\.\.\.; expec"),
    ],
)
def test_what_is_not_is_named_by_its_place_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(json.dumps(GOOD | change), SCHEMA)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("missing", ["name", "parts", "metrics", "note"])
def test_a_missing_field_is_named(missing):
    with pytest.raises(ValueError, match=f"^it lacks {missing}$"):
        check({name: value for name, value in GOOD.items() if name != missing}, SCHEMA)


def test_a_rule_that_cannot_ask_does_not_fit():
    assert not fits(("a long one", lambda value: len(value) > 3), 7)
    assert not fits(FLAG, 1) and fits(FLAG, False)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_has_a_limit_below_pythons_own(opening):
    closing = {"[": "]", '{"a":': "}"}[opening]
    for depth in (MOST_DEPTH + 1, 500, 200_000):
        with pytest.raises(ValueError, match=f"nested deeper than {MOST_DEPTH} levels"):
            parse(opening * depth + "1" + closing * depth)
    parse(opening * (MOST_DEPTH - 1) + "1" + closing * (MOST_DEPTH - 1))


def test_a_file_is_read_within_its_limit_and_only_if_it_is_one(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("[1]")
    assert read_json(str(path)) == [1]
    with pytest.raises(ValueError, match="it has 3 bytes; expected at most 2"):
        read_json(path, most=2)
    # Sparse: it takes no room.
    os.truncate(path, 3 << 30)
    with pytest.raises(ValueError, match="it has 3,221,225,472 bytes"):
        read_json(path)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match="a (FIFO|device|folder); expected a regular file"):
            read_json(special)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent")
