"""The forms for VQGAN's net: whose arrays they hold, in which layouts, and what they refuse."""

import json

import exports
import numpy as np
import pytest
import runs
from exports import AMUSED, PUBLISHED

from mq_jax import import_tokenizer
from mq_jax.formats import diffusers, taming
from mq_jax.formats.choosing import FORMATS, chosen
from mq_jax.formats.vqgan import net_of_export
from mq_jax.peers.opening import opened
from mq_jax.peers.tokenizer import read_peer
from mq_jax.tokenizers.architecture import architecture_of
from mq_jax.tokenizers.export import named
from mq_jax.tokenizers.tokenizer import Tokenizer
from mq_jax.training.taking import take_sizes

# What there is of each form to be imported: a folder, or a file in it.
SOURCES = {"diffusers": "", "taming": "model.ckpt"}
FILES = {**SOURCES, "diffusers": "diffusion_pytorch_model.safetensors"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with `diffusers` and `taming`, of the model of a published form."""
    folder, export = tmp_path_factory.mktemp("formats"), exports.export("published")
    for each in (diffusers.DIFFUSERS, taming.TAMING):
        each.write(folder / each.place, export)
    return folder


@pytest.fixture(scope="module")
def states(written):
    """The arrays of either."""
    found = {}
    for name, file in FILES.items():
        with opened(written / name / file) as arrays:
            found[name] = arrays.read(list(arrays.shapes))
    return found


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("kind", exports.PEERS)
def test_what_is_imported_again_is_the_model_bit_for_bit(name, kind, tmp_path):
    export = exports.export(kind)
    if FORMATS[name].problem(export.architecture):
        return
    FORMATS[name].write(tmp_path / name, export)
    found, expected = read_peer(tmp_path / name / SOURCES[name]), named(export.weights)
    assert (found.format, found.size, found.groups) == (name, 16, 32)
    assert found.usage.unit_pixels == export.architecture["model"].get("unit_pixels", False)
    assert found.net == net_of_export(export.architecture) and found.left == 0
    assert found.arrays.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found.arrays[path], array)


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_imported_again_has_the_same_codes(written, name):
    images = exports.images(2)
    expected = Tokenizer(exports.export("published")).encode(images)
    found = import_tokenizer(written / name / SOURCES[name]).encode(images)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["diffusers", "taming"])
def test_each_array_of_the_model_is_there_once(states, name):
    arrays = named(exports.export("published").weights)
    assert len(states[name]) == len(arrays)
    mine = sorted(float(array.sum(dtype=np.float64)) for array in arrays.values())
    theirs = sorted(float(array.sum(dtype=np.float64)) for array in states[name].values())
    np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-9)


# Our array, its axes in theirs, and its name there.
PLACES = {
    "diffusers": {
        "codebook": ("kd", "kd", "quantize.embedding.weight"),
        "theta/encoder/Conv_0/kernel": ("hwio", "oihw", "encoder.conv_in.weight"),
        "theta/encoder/Conv_3/kernel": ("hwio", "oihw", "quant_conv.weight"),
        "theta/encoder/level_1/Attention_1/query/kernel": (
            *("hwio", "oi"),
            "encoder.down_blocks.1.attentions.0.to_q.weight",
        ),
        "theta/decoder/level_1/ResidualBlock_2/GroupNorm_0/scale": (
            *("c", "c"),
            "decoder.up_blocks.0.resnets.1.norm1.weight",
        ),
        "theta/decoder/NearestUpsample_0/kernel": (
            *("hwio", "oihw"),
            "decoder.up_blocks.0.upsamplers.0.conv.weight",
        ),
    },
    "taming": {
        "codebook": ("kd", "kd", "quantize.embedding.weight"),
        "theta/encoder/Conv_1/kernel": ("hwio", "oihw", "encoder.down.0.downsample.conv.weight"),
        "theta/encoder/level_1/Attention_1/out/kernel": (
            *("hwio", "oihw"),
            "encoder.down.1.attn.0.proj_out.weight",
        ),
        "theta/decoder/level_0/ResidualBlock_0/shortcut/kernel": (
            *("hwio", "oihw"),
            "decoder.up.0.block.0.nin_shortcut.weight",
        ),
        "theta/decoder/head/bias": ("c", "c", "decoder.conv_out.bias"),
    },
}


@pytest.mark.parametrize(
    "name, ours", [(name, ours) for name, places in PLACES.items() for ours in places]
)
def test_an_array_lies_where_its_axes_say(states, name, ours):
    own, other, theirs = PLACES[name][ours]
    array = named(exports.export("published").weights)[ours]
    np.testing.assert_array_equal(states[name][theirs], np.einsum(f"{own}->{other}", array))


def test_configurations_say_what_net_it_is(written):
    found = json.loads((written / "diffusers" / "config.json").read_text())
    assert found["_class_name"] == "VQModel"
    assert found["down_block_types"] == ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]
    assert found["up_block_types"] == ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]
    assert (found["block_out_channels"], found["layers_per_block"]) == ([32, 64], 1)
    assert (found["num_vq_embeddings"], found["vq_embed_dim"]) == (16, 4)
    found = json.loads((written / "taming" / "config.yaml").read_text())["model"]["params"]
    assert (found["n_embed"], found["embed_dim"]) == (16, 4)
    net = found["ddconfig"]
    assert (net["ch"], net["ch_mult"], net["num_res_blocks"]) == (32, [1, 2], 1)
    assert (net["resolution"], net["attn_resolutions"]) == (32, [16])


def test_attention_of_sides_that_halve_to_fractions_is_at_the_same_levels():
    sides = {"data__image_size": 50, "model__attention": (25,), "model__multipliers": (1, 1, 1)}
    found = taming.model_config(architecture(**sides))["model"]["params"]["ddconfig"]
    # Its encoder halves 48, its decoder doubles 12.
    assert (found["resolution"], found["attn_resolutions"]) == (48, [24])


def architecture(**changes):
    """That of a published net with changes."""
    config = runs.configure(**{**PUBLISHED, "train__hypergradient": "joint", **changes})
    take_sizes(config)
    return architecture_of(config)


@pytest.mark.parametrize(
    "changes, reason, able",
    [
        ({"model__kind": "vqvae"}, "of kind vqvae", "pytorch"),
        ({"model__kind": "maskgit"}, "of kind maskgit, not vqgan", "pytorch"),
        ({"model__layer_norm": True}, "LayerNorm before", "pytorch"),
        ({"model__blocks": 0}, "no residual block in", "pytorch"),
        ({"quantizer__depth": 2}, "a position has 2 codes", "pytorch"),
        ({"quantizer__groups": 2}, "a position has 2 codes", "pytorch"),
        ({"quantizer__kind": "fsq"}, "finite scalar quantization", "pytorch"),
        ({"quantizer__kind": "gumbel"}, "Gumbel-softmax, not the nearest", "pytorch"),
        ({"quantizer__kind": "sqvae", "quantizer__sqvae__variance": "III"}, "III", "pytorch"),
        ({"quantizer__kind": "cvq", "quantizer__cvq__cosine": True}, "(CVQ)", "pytorch"),
        ({"model__multipliers": (2, 2)}, "its first level is 2 times as wide", "taming"),
        ({"model__groups": 16}, "its GroupNorm has 16 groups, not 32", "diffusers"),
        ({"model__middle_attention": False}, "", "pytorch"),
        ({"model__unit_pixels": True}, "its pixels are in [0, 1]", "pytorch"),
        (AMUSED, "it has no attention at its lowest resolution", "diffusers"),
    ],
)
def test_what_a_form_cannot_hold_is_said_with_the_one_that_can(changes, reason, able):
    held = architecture(**changes)
    problems = {name: each.problem(held) for name, each in FORMATS.items()}
    assert problems[able] is None
    refusing = [name for name, problem in problems.items() if problem]
    assert refusing == [
        name for name in ("diffusers", "taming") if able in (other(name), "pytorch")
    ]
    for name in refusing:
        with pytest.raises(ValueError) as caught:
            chosen([able, name], held)
        told = str(caught.value)
        assert told.startswith(f"--formats={name} cannot hold this model: ") and reason in told
        assert told.endswith(f"; --formats={able} can.") and "\n" not in told


def other(name):
    """The other one of the forms for VQGAN's net."""
    return "taming" if name == "diffusers" else "diffusers"


@pytest.mark.parametrize("kind", ["vq", "l2", "ema", "sqvae", "cvq"])
def test_nearest_codewords_are_held_whatever_trained_them(kind):
    held = architecture(quantizer__kind=kind, codebook__kind="embedding")
    assert [each.name for each in chosen(["taming", "diffusers"], held)] == ["diffusers", "taming"]


def test_the_card_tells_the_range_of_pixels():
    for name in ("diffusers", "taming"):
        assert "pixels in [-1, 1]" in FORMATS[name].reading(architecture())
    assert "pixels in [0, 1]" in FORMATS["diffusers"].reading(architecture(**AMUSED))
