"""What promises float32 multiplies in it on any device: read from the lowered programs.

A product of float32 without the precision HIGHEST is TF32 on GPUs and bfloat16 on TPUs.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
import runs

from mq_jax.algorithm.objective import Opponent
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.evaluate import make_eval_step
from mq_jax.metrics import measures
from mq_jax.metrics.collections import empty_evaluation
from mq_jax.models import inception, lpips
from mq_jax.tokenizers.coding import Weights, make_coding
from mq_jax.training.build import build, init_state
from mq_jax.training.frozen import frozen_shapes
from mq_jax.training.program import lower_program

_PRODUCT = re.compile(r"stablehlo\.(?:dot|dot_general|convolution)\b")
_TYPE = re.compile(r"tensor<(?:[\dx]*x)?([a-z]+\d+)>")

# Nets of two levels with every kind of layer, in the smallest widths, LPIPS and a discriminator.
MQVAE = {"model__channels": (4, 4), "model__blocks": 1}
MQGAN = {
    **{"model__kind": "vqgan", "model__channels": (2,), "model__multipliers": (1, 2)},
    **{"model__blocks": 0, "model__attention": (), "model__z_channels": 4, "model__groups": 2},
    **{"model__dtype": "bfloat16", "discriminator__channels": 2, "discriminator__layers": 1},
}


class Product(NamedTuple):
    """A product of a program: types of both factors, whether it is exact, and its modules."""

    types: tuple[str, str]
    highest: bool
    path: str


def products(lowered):
    """All products of a lowered program; each has a place."""
    text = lowered.as_text(debug_info=True)
    places = dict(re.findall(r'^(#loc\d+) = loc\("([^"]*)"', text, re.MULTILINE))
    found = []
    for line in filter(_PRODUCT.search, text.splitlines()):
        place = places[re.search(r"loc\((#loc\d+)\)$", line)[1]]
        # Transformations wrap names: transpose(jvp(Codebook))/net_in/dot_general.
        names = re.sub(r"\w+\(|\)", "", place).split("/")[:-1]
        left, right, _ = _TYPE.findall(line)
        found.append(Product((left, right), line.count("HIGHEST") == 2, "/".join(names)))
    return found


def inexact(found):
    """The modules of the products of float32 that may be rounded, each once."""
    return {p.path for p in found if set(p.types) == {"f32"} and not p.highest}


def lower(function, *shapes):
    return products(jax.jit(function).lower(*shapes))


def images(config, batch=2):
    side = config.data.image_size
    return jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)


@functools.cache
def described(name, **changes):
    """(configuration, what it describes, its state in shapes)."""
    config = runs.configure(name, train__steps=2, **changes)
    built = build(config, 2)
    return config, built, jax.eval_shape(lambda: init_state(built, config))


def gradients(name, **changes):
    """The products of all gradients of L."""
    config, built, state = described(name, **changes)

    def loss(params, batch_stats, x, frozen):
        opponent = Opponent(params.discriminator, jnp.ones(())) if params.discriminator else None
        parts = params.autoencoder, params.codebook, batch_stats, x
        given = {"straight_through": "encoder", "frozen": frozen, "opponent": opponent}
        return built.objective(*parts, **given)[0]

    shapes = state.params, state.batch_stats, images(config), frozen_shapes(config)
    return lower(jax.grad(loss), *shapes)


def test_a_product_without_the_precision_is_found():
    def dense(x, kernel):
        with jax.named_scope("head"):
            return jnp.sin(x @ kernel)

    matrix = jax.ShapeDtypeStruct((2, 2), jnp.float32)
    half = jax.ShapeDtypeStruct((2, 2), jnp.bfloat16)
    assert {path[-4:] for path in inexact(lower(dense, matrix, matrix))} == {"head"}
    assert {path[-4:] for path in inexact(lower(jax.vmap(dense), matrix, matrix))} == {"head"}
    assert inexact(lower(dense, half, half)) == set()
    with jax.default_matmul_precision("highest"):
        assert inexact(lower(dense, matrix, matrix)) == set()


def test_all_that_is_float32_in_an_mqgan_of_bfloat16_is_exact():
    # Quick to trace; a slow test sees the whole step.
    found = gradients(
        "photos_mqgan", **MQGAN, perceptual__net="none", discriminator__adaptive=False
    )
    logits = {path for path in inexact(found) if "/Attention_1/" in f"{path}/"}
    # Of bfloat16 factors: the derivative of a sum in float32 is one, its other factor widened.
    assert inexact(found) == logits
    exact = {p.path for p in found if p.highest}
    for part in ("net_in", "net_out", "lookup", "encoder/Conv_3", "head", "_convolution/Conv_2"):
        assert any(path.endswith(part) for path in exact), part


def test_of_an_mqvae_only_the_layers_between_the_first_and_the_last_are_inexact():
    found = gradients("photos_mqvae", **MQVAE)
    names = {path.split("AutoEncoder.")[-1] for path in inexact(found)}
    assert names == {
        *(f"encode/encoder/Conv_{layer}" for layer in (0, 1, 2)),
        *(f"encode/encoder/ResidualBlock_0/Conv_{layer}" for layer in (0, 1)),
        *(f"features/decoder.features/Conv_{layer}" for layer in (0, 1)),
        *(f"features/decoder.features/ResidualBlock_0/Conv_{layer}" for layer in (0, 1)),
        "features/decoder.features/Upsample_0",
    }
    exact = {p.path for p in found if p.highest}
    for part in ("net_in", "net_out", "lookup", "encoder/Conv_3", "head"):
        assert any(path.endswith(part) for path in exact), part


@pytest.mark.parametrize("kind", ["mlp-relu", "linear", "basis"])
def test_every_hyper_net_is_exact(kind):
    _, built, state = described("photos_mqvae", codebook__kind=kind)
    found = lower(built.objective.codewords, state.raw)
    assert found and inexact(found) == set()


FEATURES = {
    "inception": (inception.inception_features, inception.weight_shapes(), 32),
    "vgg": (functools.partial(lpips.features, net="vgg"), lpips.weight_shapes("vgg"), 32),
    "vgg, thin maps": (
        functools.partial(lpips.features, net="vgg"),
        lpips.weight_shapes("vgg"),
        16,
    ),
}


@pytest.mark.parametrize("net", FEATURES)
def test_the_features_of_a_frechet_distance_are_exact(net):
    function, weights, side = FEATURES[net]
    found = lower(function, weights, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    assert found and inexact(found) == set()


def evaluated(name, **changes):
    """The products of an evaluation with all measures of single images."""
    config, built, state = described(name, **changes)
    per_image = [("ssim", measures._ssim), *measures._DISTANCES.items()]
    step = make_eval_step(built.objective, tuple(per_image))
    names = "mse", "psnr", *(name for name, _ in per_image)
    nothing = empty_evaluation(config.codebook.size, names)
    side = config.data.image_size
    batch = jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8)
    mask, weights = (
        jax.ShapeDtypeStruct((2,), jnp.float32),
        {n: lpips.weight_shapes(n) for n in lpips.NETS},
    )
    return lower(step, state, nothing, batch, mask, weights)


def test_an_evaluation_of_bfloat16_measures_in_float32():
    found = evaluated("photos_mqgan", **MQGAN)
    assert inexact(found) == set()
    assert len([p for p in found if p.path.endswith("lpips") and p.highest]) == 2 * (5 + 13)


def test_a_tokenizer_has_the_precision_of_evaluation():
    config, built, state = described("photos_mqgan", **MQGAN)
    objective, codes = built.objective, jax.ShapeDtypeStruct((2, 16, 16), jnp.int32)
    coding = make_coding(objective.autoencoder, objective.quantizer)
    shape = config.codebook.size, config.codebook.dim
    codebook = jax.ShapeDtypeStruct(shape, jnp.float32)
    weights = Weights(state.params.autoencoder, state.batch_stats, codebook)
    for method, given in (("encode", images(config)), ("pixels", codes)):
        found = lower(getattr(coding, method), weights, given)
        assert inexact(found) == set() and any(p.highest for p in found)


@pytest.mark.slow
@pytest.mark.parametrize("hypergradient", ["unrolled", "finite-difference"])
def test_whole_train_steps_are_exact_where_l_is(hypergradient):
    changes = {**MQGAN, "train__hypergradient": hypergradient, "discriminator__r1": 1.0}
    config, built, _ = described("photos_mqgan", **changes)
    found = products(lower_program(config, built, make_mesh()).step)
    assert {path for path in inexact(found) if "/Attention_1/" not in f"{path}/"} == set()
