"""The form for PyTorch alone: what it writes, and what of PyTorch it asks for."""

import ast
import json
import sys
from importlib import resources

import exports
import pytest
from exports import FACTS, same

from mq_jax.formats.choosing import present
from mq_jax.formats.pytorch import PYTORCH
from mq_jax.tokenizers.export_reading import read_export
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.training.quantizing import KINDS


def test_the_module_needs_pytorch_and_nothing_else(tmp_path):
    PYTORCH.write(tmp_path / PYTORCH.place, exports.export("vqvae"))
    tree = ast.parse((tmp_path / PYTORCH.place).read_text())
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"torch"}


def test_the_module_knows_every_kind_of_quantizer():
    source = resources.files("mq_jax.formats").joinpath(PYTORCH.place).read_text()
    (table,) = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "KINDS"
    ]
    assert {key.value for key in table.keys} == set(KINDS)


def test_the_module_lies_beside_the_weights_and_the_card_says_how_it_is_read(tmp_path):
    export = exports.export("vqvae")
    folder = write_export(tmp_path / "export", export, FACTS, formats=[PYTORCH])
    same(read_export(folder), export)
    assert present(folder) == ["pytorch"]
    files = json.loads((folder / "card.json").read_text())["files"]
    assert files[PYTORCH.place]["bytes"] == (folder / PYTORCH.place).stat().st_size
    page = (folder / "README.md").read_text()
    assert "[B, h, w]\ndecoded = tokenizer.decode(indices)  # u8[B, 3, H, W]\n```\n" in page
    assert "order of float additions.\n\n```python\nfrom torch_tokenizer" in page


@pytest.mark.parametrize(
    "kind, told",
    [
        ("vqgan in bfloat16", "It computes in float32, the trained model in bfloat16"),
        ("vq groups of residuals", "-> i64[B, h, w, 6]"),
    ],
)
def test_the_card_tells_of_other_numbers_and_several_codes(kind, told):
    assert told in PYTORCH.reading(exports.export(kind).architecture)
