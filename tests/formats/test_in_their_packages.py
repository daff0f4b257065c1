"""Exports opened by the programs that they are for, by hand:

MQ_PEERS_PYTHON=PYTHON python -m pytest -m slow tests/formats/test_in_their_packages.py

PYTHON is an interpreter with torch, diffusers, taming-transformers-rom1504 and what these import.
"""

import functools
import json
import os
import re
import subprocess

import exports
import jax
import numpy as np
import pytest
import safetensors.numpy
from exports import FACTS

from mq_jax.formats import pytorch
from mq_jax.formats.choosing import FORMATS
from mq_jax.tokenizers.architecture import config_of
from mq_jax.tokenizers.export import coding_of, named
from mq_jax.tokenizers.export_writing import write_export
from mq_jax.training.build import make_autoencoder

PYTHON = os.environ.get("MQ_PEERS_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="MQ_PEERS_PYTHON names no interpreter"),
]

# The code of a card, in the folder of its export; then what it made, and more, by expressions.
_CHILD = """
import sys, numpy as np, torch
block, given, found, *expressions = sys.argv[1:]
names = {"images": torch.from_numpy(np.load(given)), "torch": torch}
with torch.no_grad():
    exec(open(block).read(), names)
    for expression in ("indices", "decoded", *expressions):
        names[f"={expression}"] = eval(expression, names)
np.savez(found, **{name[1:]: value for name, value in names.items() if name.startswith("=")})
"""
IMAGES = exports.images(3, 32, 48)


def ran(folder, block, images, tmp_path, *expressions):
    """Arrays by name that a block of code makes of images."""
    (tmp_path / "block.py").write_text(block)
    np.save(tmp_path / "given.npy", np.moveaxis(images, -1, 1))
    paths = [str(tmp_path / name) for name in ("block.py", "given.npy", "found.npz")]
    command = [PYTHON, "-B", "-c", _CHILD, *paths, *expressions]
    outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run(command, check=True, cwd=folder, env=outside)
    with np.load(tmp_path / "found.npz") as found:
        return {name: found[name] for name in found}


@functools.cache
def expected(kind):
    """(z, indices, pixels) of IMAGES by ours."""
    export = exports.export(kind)
    coding, (theta, statistics, _) = coding_of(export), export.weights
    variables = {"params": theta, "batch_stats": statistics}
    autoencoder = make_autoencoder(config_of(export.architecture))
    z = autoencoder.apply(variables, IMAGES / np.float32(127.5) - 1, train=False, method="encode")
    indices = jax.jit(coding.encode)(export.weights, IMAGES)
    return np.asarray(z), np.asarray(indices), np.asarray(coding.pixels(export.weights, indices))


def close(found, wanted):
    """Asserts that pixels or encodings of theirs, channels first, are ours."""
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", [*exports.PEERS])
@pytest.mark.parametrize("name", ["diffusers", "taming"])
def test_the_code_of_the_card_codes_as_ours_in_their_packages(kind, name, tmp_path):
    export = exports.export(kind)
    if FORMATS[name].problem(export.architecture):
        pytest.skip("It is refused.")
    folder = write_export(tmp_path / "export", export, FACTS, formats=[FORMATS[name]])
    card = (folder / "README.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", card, re.S) if "VQModel" in b]
    unit = export.architecture["model"].get("unit_pixels", False)
    images = IMAGES / np.float32(255) if unit else IMAGES / np.float32(127.5) - 1
    found = ran(folder, block, images, tmp_path)
    _, indices, pixels = expected(kind)
    np.testing.assert_array_equal(found["indices"].reshape(indices.shape), indices)
    assert len(np.unique(indices)) > 2
    close(found["decoded"], (pixels + 1) / 2 if unit else pixels)


KINDS = [*exports.KINDS, *exports.PEERS, *exports.QUANTIZERS]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "bfloat16" not in kind])
def test_pytorch_alone_codes_as_ours(kind, tmp_path):
    export = exports.export(kind)
    z, indices, pixels = expected(kind)
    pytorch.PYTORCH.write(tmp_path / pytorch.PYTORCH.place, export)
    arrays, metadata = named(export.weights), {"mq_jax": json.dumps(export.header)}
    safetensors.numpy.save_file(arrays, tmp_path / "tokenizer.safetensors", metadata=metadata)
    reading = pytorch.PYTORCH.reading(export.architecture)
    (block,) = re.findall(r"```python\n(.*?)```", reading, re.S)
    more = ("tokenizer.latents(images)", "tokenizer.pixels(indices)", "tokenizer(images[..., 1:])")
    found = ran(tmp_path, block, IMAGES, tmp_path, *more)
    np.testing.assert_array_equal(found["indices"], indices)
    close(found["tokenizer.latents(images)"], z)
    close(found["tokenizer.pixels(indices)"], pixels)
    assert found["decoded"].dtype == np.uint8 and found["decoded"].shape == (3, 3, 32, 48)
    assert found["tokenizer(images[..., 1:])"].shape == (3, 3, 32, 47)


@pytest.mark.parametrize("damage", ["bit", "cut", "other"])
def test_pytorch_alone_finds_damage(damage, tmp_path):
    export = exports.export("vqvae")
    pytorch.PYTORCH.write(tmp_path / pytorch.PYTORCH.place, export)
    header = {} if damage == "other" else {"mq_jax": json.dumps(export.header)}
    data = bytearray(safetensors.numpy.save(named(export.weights), metadata=header))
    data[-9] ^= damage == "bit"
    (tmp_path / "tokenizer.safetensors").write_bytes(data[:-4] if damage == "cut" else data)
    script = "import torch_tokenizer as t; t.load_tokenizer('tokenizer.safetensors')"
    done = subprocess.run(
        [PYTHON, "-B", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    told = "is damaged or was edited" if damage == "bit" else "is no whole tokenizer.safetensors"
    assert f"ValueError: tokenizer.safetensors {told}" in done.stderr
