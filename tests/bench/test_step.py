"""Train steps beside one another: their table, what it is measured against, and its file."""

import json
import types

import pytest
import runs

from mq_jax.bench import parts, step


def test_the_table_tells_the_share_of_the_device_and_is_kept_as_json(tmp_path, monkeypatch, capsys):
    """Of a quantizer without parameters there is the joint step alone."""
    monkeypatch.setattr(step, "matmul_rate", lambda dtype="float32": 1e-6)
    config = runs.configure(quantizer__kind="fsq", train__hypergradient="joint")
    given = {"rounds": 1, "straight_through": "encoder", "cores": 1}
    parts.run_part("step", config, **given, output=tmp_path / "step.json")
    assert "MFU: convolutions and products over the float32 peak of cpu" in capsys.readouterr().out
    kept = json.loads((tmp_path / "step.json").read_text())
    assert kept["part"] == "step" and kept["environment"]["devices"]["kind"] == "cpu"
    (table,) = kept["tables"]
    row = dict(zip(table["columns"], table["rows"][0], strict=True))
    assert row["step, straight-through"] == "joint, encoder"
    assert float(row["MFU"].rstrip("%")) > 100


@pytest.mark.parametrize(
    "kind, expected", [("NVIDIA H100 80GB HBM3", 989e3), ("NVIDIA RTX 9", None)]
)
def test_the_peak_of_an_accelerator_is_its_maker_s_or_not_known(monkeypatch, kind, expected):
    device = types.SimpleNamespace(platform="gpu", device_kind=kind)
    monkeypatch.setattr(step.jax, "devices", lambda: [device])
    assert step.peak_rate("bfloat16") == expected
    assert ("not known" in step._roof_in_words("bfloat16", expected)) == (expected is None)


def test_hyper_gradients_are_chosen_by_name():
    assert step.kinds_named("", step.KINDS) == []
    assert step.kinds_named("joint,cg", step.KINDS) == ["joint", "cg"]
    with pytest.raises(ValueError, match="--kinds=cg,sharp names 'sharp'; expected some of"):
        step.kinds_named("cg,sharp", step.KINDS)
