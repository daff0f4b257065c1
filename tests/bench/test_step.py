"""Train steps beside one another: their table, what it is measured against, and its file."""

import json
import types

import jax
import pytest
import runs

from mq_jax.algorithm import mq
from mq_jax.bench import parts, step
from mq_jax.bench.program import Program

GIVEN = {"rounds": 1, "straight_through": "encoder", "cores": 1}


def read(path):
    """What a part has written, and its table as rows by name, each by the first of its columns."""
    kept = json.loads(path.read_text())
    (table,) = kept["tables"]
    named = lambda row: dict(reversed([*zip(table["columns"], row, strict=True)]))  # noqa: E731
    return kept, {row[0]: named(row) for row in table["rows"]}


def test_the_table_tells_the_share_of_the_device_and_is_kept_as_json(tmp_path, monkeypatch, capsys):
    """Of a quantizer without parameters there is the joint step alone."""
    monkeypatch.setattr(step, "matmul_rate", lambda dtype: 1e-6)
    config = runs.configure(quantizer__kind="fsq", train__hypergradient="joint")
    parts.run_part("step", config, **GIVEN, output=tmp_path / "step.json")
    told = capsys.readouterr().out
    assert "MFU and HFU: convolutions and products over the float32 peak of cpu" in told
    kept, rows = read(tmp_path / "step.json")
    assert kept["part"] == "step" and kept["environment"]["devices"]["kind"] == "cpu"
    assert kept["whole"] and kept["tables"][0]["whole"]
    row = rows["joint, encoder"]
    # Too narrow for Winograd, and nothing is recomputed.
    assert float(row["MFU"].rstrip("%")) > 100 and row["MFU"] == row["HFU"]


def program(milliseconds=1.0, **changes):
    """A step that takes no time to make."""
    fields = {"flops": 3e9, "model_flops": 2e9, "executed_flops": 1e9, "memory": 2**20}
    fields |= {"compile_seconds": 3.0, "cached": False, "text": str}
    return Program(lambda: milliseconds, **{**fields, **changes})


@pytest.fixture
def made(monkeypatch):
    """Steps that are made by a table, or raise; each takes a millisecond times what it returns."""
    table = {}

    def compiled_step(config, kind, straight_through):
        if isinstance(table[kind], BaseException):
            raise table[kind]
        return table[kind]

    def interleaved(functions, rounds, calls):
        return {name: run() / 1e3 for name, run in functions.items()}

    monkeypatch.setattr(step, "compiled_step", compiled_step)
    monkeypatch.setattr("mq_jax.bench.tables.interleaved", interleaved)
    monkeypatch.setattr(step, "matmul_rate", lambda dtype: 1e4)
    return table


def test_each_column_is_what_it_is_called(made, tmp_path):
    made["joint"] = program()
    made["none"] = program(2.0, flops=6e9, memory=2**21, cached=True)
    parts.run_part("step", runs.configure(), **GIVEN, kinds=["none"], output=tmp_path / "s.json")
    _, rows = read(tmp_path / "s.json")
    table = json.loads((tmp_path / "s.json").read_text())["tables"][0]
    assert table["columns"] == list(step._COLUMNS)
    assert table["rows"][1] == [
        *("none, encoder", "6.00", "2.00", "2.0", "2.00", "3000", "30%"),
        # 2 and 1 GFLOP in 2 ms, of 10 TFLOP/s.
        *("10.0%", "5.0%", "2", "2.00", "3 cached"),
    ]
    assert rows["joint, encoder"]["compile s"] == "3"


def test_what_is_cut_short_leaves_its_first_rows(made, tmp_path):
    made |= {"joint": program(), "none": program(2.0), "unrolled": KeyboardInterrupt()}
    kinds = ["none", "unrolled"]
    with pytest.raises(KeyboardInterrupt):
        parts.run_part("step", runs.configure(), **GIVEN, kinds=kinds, output=tmp_path / "s.json")
    kept, rows = read(tmp_path / "s.json")
    assert list(rows) == ["joint, encoder", "none, encoder"]
    assert rows["none, encoder"]["ms"] == "2.0"
    assert not kept["whole"] and not kept["tables"][0]["whole"]
    assert "each alone, once" in kept["tables"][0]["title"]


def test_a_step_that_xla_fails_at_is_told_and_the_others_go_on(made, tmp_path, capsys):
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB\nand a stack of frames")
    made |= {"joint": program(), "none": error, "unrolled": program(3.0)}
    kinds = ["none", "unrolled"]
    parts.run_part("step", runs.configure(), **GIVEN, kinds=kinds, output=tmp_path / "s.json")
    kept, rows = read(tmp_path / "s.json")
    assert list(rows) == ["joint, encoder", "none, encoder", "unrolled, encoder"]
    assert rows["none, encoder"]["GFLOP"] == "failed" and kept["whole"]
    assert rows["unrolled, encoder"]["ms"] == "3.0"
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "none, encoder failed: RESOURCE_EXHAUSTED: 9 GiB"


@pytest.mark.parametrize(
    "kind, expected", [("NVIDIA H100 80GB HBM3", 989e3), ("NVIDIA RTX 9", None)]
)
def test_the_peak_of_an_accelerator_is_its_maker_s_or_not_known(monkeypatch, kind, expected):
    device = types.SimpleNamespace(platform="gpu", device_kind=kind)
    monkeypatch.setattr(step.jax, "devices", lambda: [device])
    assert step.peak_rate("bfloat16", 1.0) == expected
    assert ("not known" in step._roof_in_words("bfloat16", expected)) == (expected is None)


def test_every_hyper_gradient_of_training_is_timed():
    assert set(step.HYPERGRADIENTS) == set(mq.HYPERGRADIENTS)
    every = step.chosen_kinds(runs.configure(), "all")
    assert every[:2] == [("joint", "encoder"), ("joint", "encoder-and-codewords")]
    assert len(every) == 15 and {kind for kind, _ in every} == set(mq.HYPERGRADIENTS)


@pytest.mark.parametrize("estimator", mq.STRAIGHT_THROUGH)
def test_an_estimator_goes_with_what_training_takes_it_with(estimator):
    first, *rest = step.chosen_kinds(runs.configure(), estimator)
    # A joint step has no level inside another.
    inside = estimator == "encoder-and-codewords-inside"
    assert first == ("joint", "encoder" if inside else estimator)
    assert ("unrolled", estimator) in rest and ("pipelined", estimator) in rest


def test_steps_of_a_quantizer_without_parameters_have_one_level():
    config = runs.configure(quantizer__kind="fsq", train__hypergradient="joint")
    assert step.chosen_kinds(config, "all") == [
        ("joint", "encoder"),
        ("joint", "encoder-and-codewords"),
    ]
    assert step.chosen_kinds(config, "encoder") == [("joint", "encoder")]


def test_kinds_are_chosen_by_name():
    config = runs.configure()
    assert parts.kinds_named("", "pieces", config) == []
    assert parts.kinds_named("joint,cg", "step", config) == ["joint", "cg"]
    assert parts.kinds_named("fsq", "quantizers", config) == ["fsq"]
    for text, part, message in [
        ("cg,sharp", "step", "--kinds=cg,sharp names 'sharp'; expected some of joint, none"),
        ("cg", "quantizers", "names 'cg'; expected some of vq, l2"),
        ("cg", "pieces", "names 'cg'; expected none with --part=pieces"),
    ]:
        with pytest.raises(ValueError, match=message):
            parts.kinds_named(text, part, config)


def test_a_kind_that_training_does_not_take_is_refused_by_its_reason():
    config = runs.configure(quantizer__kind="fsq", train__hypergradient="joint")
    with pytest.raises(ValueError, match="names 'cg', which training does not take: config"):
        parts.kinds_named("cg", "step", config)
