"""The StableHLO programs of an export: signed, refused where damaged, named where misused."""

import re
import shutil

import exports
import jax
import numpy as np
import pytest

from mq_jax import load_tokenizer
from mq_jax.devices.environment import environment
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.tokenizers.programs import read_program, sign

FACTS = {
    "training": {"source": "photos", "split": "train", "step": 1, "config": {}},
    "evaluation": None,
    "environment": environment(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export."""
    place = tmp_path_factory.mktemp("exports") / "export"
    return write_export(place, exports.export("vqvae"), FACTS)


def card_loader(folder):
    """The function that the model card shows, for JAX alone."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    (block,) = [block for block in blocks if "jax.export" in block]
    names = {}
    exec(block.partition("encode, decode = ")[0], names)
    return lambda path, *_: names["load"](str(path))


@pytest.mark.parametrize("loader", [lambda _: read_program, card_loader])
@pytest.mark.parametrize("name", ["encode.stablehlo", "decode.stablehlo"])
def test_a_damaged_program_is_refused_wherever_it_is_damaged(folder, tmp_path, name, loader):
    data, load, path = (folder / name).read_bytes(), loader(folder), tmp_path / name
    rng = np.random.default_rng(0)
    # Near the end lie the fingerprint and the hash; of the rest any bit is as good.
    places = [*rng.integers(len(data), size=20), *range(len(data) - 140, len(data), 7)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            load(path)
    for size in (0, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            load(path)


@pytest.mark.parametrize("loader", [lambda _: read_program, card_loader])
def test_a_program_of_another_model_is_refused(folder, tmp_path, loader):
    load = loader(folder)
    fingerprint, other = exports.export("vqvae").fingerprint, tmp_path / "encode.stablehlo"
    program = (folder / other.name).read_bytes()[:-137]
    other.write_bytes(sign(program, exports.export("vqvae with averages").fingerprint))
    with pytest.raises(ValueError, match="of (another|the) model"):
        load(other, fingerprint)
    assert load(folder / "encode.stablehlo", fingerprint)


def test_a_program_without_a_signature_is_told(folder, tmp_path):
    data = (folder / "encode.stablehlo").read_bytes()
    bare = tmp_path / "encode.stablehlo"
    bare.write_bytes(data[:-137])
    assert jax.export.deserialize(bytearray(data[:-137]))
    with pytest.raises(ValueError, match="exported before programs carried a fingerprint"):
        read_program(bare)
    bare.write_bytes(sign(b"no program", "ab" * 32))
    with pytest.raises(ValueError, match="no program that this JAX reads") as error:
        read_program(bare)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["decode.stablehlo", "renamed"])
def test_a_program_given_as_a_tokenizer_is_named_as_such(folder, tmp_path, name):
    shutil.copy(folder / "decode.stablehlo", tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is a StableHLO program, .*expected the folder"):
        load_tokenizer(tmp_path / name)
