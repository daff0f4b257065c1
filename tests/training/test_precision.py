"""What promises float32 multiplies in it on any device: read from the lowered programs.

A product of float32 without the precision HIGHEST is TF32 on GPUs and bfloat16 on TPUs.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
import runs
from programs import MQGAN, inexact, products

from mq_jax.algorithm.objective import Opponent
from mq_jax.devices.sharding import make_mesh
from mq_jax.evaluation.evaluate import make_eval_step
from mq_jax.metrics import measures
from mq_jax.metrics.collections import empty_evaluation
from mq_jax.models import inception, lpips
from mq_jax.tokenizers.coding import Weights, make_coding
from mq_jax.training.build import build
from mq_jax.training.first import init_state
from mq_jax.training.frozen import frozen_shapes
from mq_jax.training.lowering import lower_program

# Nets of two levels with every kind of layer, in the smallest widths, LPIPS and a discriminator.
MQVAE = {"model__channels": (4, 4), "model__blocks": 1}


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


# What is float32 in a net of bfloat16: the codes, and what makes the last numbers of a net.
ISLANDS = {
    *("Codebook/net_in", "Codebook/net_out", "encoder/Conv_3", "decoder.pixels/head"),
    "Discriminator._convolution/Conv_2",
}


def float32(found):
    """The innermost two modules of each product of float32, those of a lookup left out."""
    paths = (p.path for p in found if "f32" in p.types and not p.path.endswith("lookup"))
    return {"/".join(path.split("/")[-2:]) for path in paths}


# Quick to trace; slow tests see whole steps.
QUICK = {**MQGAN, "perceptual__net": "none", "discriminator__adaptive": False}
# Beside its levels, MaskGIT's encoder has its first and its last layer alone.
NETS = {"vqgan": ISLANDS, "maskgit": ISLANDS - {"encoder/Conv_3"} | {"encoder/Conv_1"}}


@pytest.mark.parametrize("net", NETS)
def test_all_that_is_float32_in_an_mqgan_of_bfloat16_is_exact(net):
    found = gradients("photos_mqgan", **{**QUICK, "model__kind": net})
    assert float32(found) == NETS[net]
    assert inexact(found) == set()
    assert any(p.highest and p.path.endswith("lookup") for p in found)
    assert sum(set(p.types) == {"bf16"} for p in found) > len(found) / 2


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
    # Five of VGG's convolutions take Winograd's form here, whose products have other places.
    assert len([p for p in found if p.path.endswith("lpips") and p.highest]) == 2 * (5 + 13 - 5)


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


STEPS = {
    "joint": {},
    "unrolled": {},
    "pipelined": {},
    "pipelined, kept": {"train__hypergradient": "pipelined", "train__keep_activations": True},
}


def of_step(kind, changes):
    """The products of a train step: in the nets those of L, beside them of scalar results alone."""
    config, built, _ = described(
        "photos_mqgan", **{"train__hypergradient": kind, **STEPS[kind], **changes}
    )
    found = products(lower_program(config, built, make_mesh()).step)
    assert inexact(found) == set()
    nets = [p for p in found if not p.path.endswith("step")]
    assert float32(nets) == NETS[config.model.kind]
    # Of the parts of the outer gradient.
    assert {p.outputs for p in found if p.path.endswith("step")} <= {1}
    return found


@pytest.mark.parametrize("kind", STEPS)
def test_train_steps_are_exact_where_l_is(kind):
    of_step(kind, {**QUICK, "model__kind": "maskgit"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", STEPS)
def test_so_are_those_with_lpips_an_adaptive_weight_and_a_penalty(kind):
    found = of_step(kind, {**MQGAN, "discriminator__r1": 1.0})
    assert {p.types for p in found if p.path.endswith("lpips")} == {("bf16", "bf16")}
