"""VQGAN's auto-encoder: NumPy's value, closed-form counts, shapes, precision, rematerialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import assert_equal_to, derivatives, normal
from numpy_layers import cast, convolution, draw_parameters, group_norm, layer_norm

from mq_jax.models import vqgan_blocks
from mq_jax.models.vqgan import AutoEncoder
from mq_jax.models.vqgan_blocks import Attention, Layers, NearestUpsample, ResidualBlock

GROUPS = 4
F16, F8 = (1, 1, 2, 2, 4), (1, 2, 2, 4)
ONE_TO_THE_RIGHT = ((0, 1), (0, 1))


def make_model(**changes):
    """8 channels, two levels, one residual block a level, attention at the second; f4 z."""
    settings = {
        **{"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dim": 3},
        **{"z_channels": 5, "groups": GROUPS, "layer_norm": True, "init_std": 0.0},
        **{"dtype": jnp.float32, "remat": False},
    }
    return AutoEncoder(**{**settings, **changes})


def make_images(*shape, dtype=np.float32):
    return np.random.default_rng(1).uniform(-1, 1, (*shape, 3)).astype(dtype)


def make_layers(dtype=jnp.float64):
    return Layers(GROUPS, init_std=0.0, dtype=dtype, remat=False)


def swish(x):
    return x / (1 + np.exp(-x))


def residual_block(x, p):
    y = x
    for i in (0, 1):
        y = convolution(swish(group_norm(y, p[f"GroupNorm_{i}"], GROUPS)), p[f"Conv_{i}"])
    return y + (convolution(x, p["shortcut"]) if "shortcut" in p else x)


def attention(x, p):
    y = group_norm(x, p["GroupNorm_0"], GROUPS)
    query, key, value = [
        convolution(y, p[name]).reshape(len(x), -1, x.shape[-1])
        for name in ("query", "key", "value")
    ]
    weights = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(x.shape[-1]))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ value
    return x + convolution(mixed.reshape(x.shape), p["out"])


def upsample(x, p):
    return convolution(x.repeat(2, axis=1).repeat(2, axis=2), p)


def stack(x, p):
    for name in sorted(p, key=lambda name: int(name.split("_")[1])):
        x = (residual_block if name.startswith("Residual") else attention)(x, p[name])
    return x


def encode(images, p):
    x = stack(convolution(images, p["Conv_0"]), p["level_0"])
    x = convolution(x, p["Conv_1"], stride=2, padding=ONE_TO_THE_RIGHT)
    x = swish(group_norm(stack(stack(x, p["level_1"]), p["middle"]), p["GroupNorm_0"], GROUPS))
    return layer_norm(convolution(convolution(x, p["Conv_2"]), p["Conv_3"]), p["LayerNorm_0"])


def features(z, p):
    x = stack(convolution(convolution(z, p["Conv_0"]), p["Conv_1"]), p["middle"])
    x = stack(upsample(stack(x, p["level_1"]), p["NearestUpsample_0"]), p["level_0"])
    return swish(group_norm(x, p["GroupNorm_0"], GROUPS))


BLOCKS = {
    "residual": (ResidualBlock, 8, residual_block),
    "residual, wider": (ResidualBlock, 12, residual_block),
    "attention": (Attention, 8, attention),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_its_formula(name):
    kind, width, formula = BLOCKS[name]
    x = 3 * np.random.default_rng(0).normal(size=(2, 3, 5, 8))
    with jax.enable_x64(True):
        block = kind(width, make_layers())
        params = draw_parameters(block, x)
        out = tiny.jit(block.apply)({"params": params}, x)
    assert out.shape == (2, 3, 5, width)
    assert ("shortcut" in params) == (width != 8)
    np.testing.assert_allclose(out, formula(x, params), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_logits_are_a_product_with_all_its_derivatives():
    operands = [normal(seed, 2, 3, 4) for seed in range(4)]

    def product(query, key):
        return jnp.einsum("bqc,bkc->bqk", query, key)

    got, want = (
        tiny.jit(lambda f=f: derivatives(f, *operands))() for f in (vqgan_blocks._logits, product)
    )
    assert_equal_to(1e-12, got, want)


def test_upsampling_repeats_pixels_and_convolves():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    with jax.enable_x64(True):
        layer = NearestUpsample(make_layers())
        params = draw_parameters(layer, x)
        out = tiny.jit(layer.apply)({"params": params}, x)
    np.testing.assert_allclose(out, upsample(x, params), rtol=1e-10, atol=1e-10)


def test_the_auto_encoder_is_its_formula_for_images_of_any_shape():
    images = make_images(2, 8, 12, dtype=np.float64)
    with jax.enable_x64(True):
        model = make_model(dtype=jnp.float64)
        params = draw_parameters(model, images, train=True)
        variables = {"params": params}

        @tiny.jit
        def parts():
            z = model.apply(variables, images, train=True, method="encode")
            return z, model.apply(variables, z, train=True, method="features")

        z, inner = parts()
        head = {"params": {"decoder": {"head": params["decoder"]["head"]}}}
        pixels = model.apply(head, inner, method="pixels")
        whole = tiny.jit(lambda: model.apply(variables, images, train=False))()
    assert z.dtype == inner.dtype == pixels.dtype == np.float64
    assert z.shape == (2, 4, 6, 3) and inner.shape == (2, 8, 12, 8)
    np.testing.assert_allclose(z, encode(images, params["encoder"]), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(inner, features(np.asarray(z), params["decoder"]), 1e-8, 1e-8)
    expected = convolution(np.asarray(inner), params["decoder"]["head"])
    np.testing.assert_allclose(pixels, expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(whole, expected, rtol=1e-8, atol=1e-8)


def counts(channels, multipliers, blocks, levels, dim, z_channels):
    """Parameters of the encoder and of the decoder, from the architecture on paper."""

    def conv(size, inputs, outputs):
        return size**2 * inputs * outputs + outputs

    def residual(inputs, outputs):
        shortcut = conv(1, inputs, outputs) if inputs != outputs else 0
        convs = conv(3, inputs, outputs) + conv(3, outputs, outputs)
        return 2 * inputs + 2 * outputs + convs + shortcut

    def attend(width):
        return 2 * width + 4 * conv(1, width, width)

    widths = [channels * m for m in multipliers]
    top, last = widths[-1], len(widths) - 1
    middle = 2 * residual(top, top) + attend(top)
    encoder = conv(3, 3, channels) + middle
    encoder += 2 * top + conv(3, top, z_channels) + conv(1, z_channels, dim)
    decoder = conv(1, dim, z_channels) + conv(3, z_channels, top) + middle
    decoder += 2 * widths[0] + conv(3, widths[0], 3)
    for level, width in enumerate(widths):
        below, above = widths[max(level - 1, 0)], widths[min(level + 1, last)]
        encoder += residual(channels if level == 0 else below, width)
        encoder += (blocks - 1) * residual(width, width)
        encoder += blocks * attend(width) if level in levels else 0
        encoder += conv(3, width, width) if level < last else 0
        decoder += residual(above, width) + blocks * residual(width, width)
        decoder += (blocks + 1) * attend(width) if level in levels else 0
        decoder += conv(3, width, width) if level > 0 else 0
    return encoder, decoder


# Esser et al.'s f16 with 1x1 convolutions from and to 256 channels: 29.3 and 42.4 million, beside
# these 65,792 each; Rombach et al.'s f8 with four channels.
TOTALS = [
    (F16, (4,), 256, 256, (29_363_968, 42_515_587)),
    (F8, (3,), 4, 4, (27_397_784, 40_253_975)),
]


@pytest.mark.parametrize("multipliers, levels, dim, z_channels, totals", TOTALS)
def test_parameters_number_what_the_architecture_says(multipliers, levels, dim, z_channels, totals):
    shape = {"multipliers": multipliers, "attention": levels, "dim": dim, "z_channels": z_channels}
    model = make_model(channels=128, blocks=2, groups=32, layer_norm=False, **shape)
    images = jax.ShapeDtypeStruct((1, 64, 32, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: model.init(key, x, train=True), images)
    assert set(variables) == {"params"}
    found = [
        sum(leaf.size for leaf in jax.tree.leaves(variables["params"][half]))
        for half in ("encoder", "decoder")
    ]
    assert found == list(totals)
    assert found == list(counts(128, multipliers, 2, levels, dim, z_channels))


def test_a_net_of_unit_pixels_is_that_of_signed_ones_between_two_maps():
    images = make_images(2, 8, 8)
    model, unit = make_model(), make_model(unit_pixels=True)
    params = model.init(jax.random.key(0), images, train=False)
    z = unit.apply(params, images, train=False, method="encode")
    expected = model.apply(params, (images + 1) / 2, train=False, method="encode")
    np.testing.assert_allclose(z, expected, atol=1e-6)
    decoded = unit.apply(params, z, train=False, method="decode")
    expected = 2 * model.apply(params, z, train=False, method="decode") - 1
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


def test_a_middle_without_attention_is_two_residual_blocks():
    images = make_images(1, 4, 4)
    shapes = make_model(middle_attention=False).init(jax.random.key(0), images, train=False)
    for half in ("encoder", "decoder"):
        middle = shapes["params"][half]["middle"]
        assert sorted(middle) == ["ResidualBlock_0", "ResidualBlock_1"]


@pytest.mark.parametrize(
    "multipliers, factor, dtype",
    [(F16, 16, jnp.float32), (F8, 8, jnp.bfloat16), ((1,), 1, jnp.float32)],
)
def test_sides_are_divided_by_the_downsampling_and_restored(multipliers, factor, dtype):
    last = len(multipliers) - 1
    model = make_model(multipliers=multipliers, blocks=2, attention=(last,), dim=6, dtype=dtype)
    images = jax.ShapeDtypeStruct((2, 3 * factor, 2 * factor, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: model.init(key, x, train=True), images)

    def parts(variables, images):
        z = model.apply(variables, images, train=True, method="encode")
        inner = model.apply(variables, z, train=True, method="features")
        return z, inner, model.apply(variables, inner, method="pixels")

    z, inner, pixels = jax.eval_shape(parts, variables, images)
    assert model.downsampling == factor
    assert z.shape == (2, 3, 2, 6)
    assert inner.shape == (*images.shape[:3], 8)
    assert pixels.shape == images.shape
    for array in (z, inner, pixels, *jax.tree.leaves(variables)):
        assert array.dtype == jnp.float32
    encoder, decoder = variables["params"]["encoder"], variables["params"]["decoder"]
    for half, blocks in ((encoder, 2), (decoder, 3)):
        for level in range(last + 1):
            names = "".join(half[f"level_{level}"])
            assert names.count("ResidualBlock") == blocks
            assert names.count("Attention") == (blocks if level == last else 0)
    assert decoder["head"]["kernel"].shape == (3, 3, 8, 3)


def test_bfloat16_rounds_little_and_leaves_the_last_layers_in_float32():
    images = make_images(2, 16, 16)
    params = cast(draw_parameters(make_model(), images, train=True), jnp.float32)
    results = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = make_model(dtype=dtype)
        z = tiny.jit(
            lambda m=model: m.apply({"params": params}, images, train=True, method="encode")
        )()
        x_hat = tiny.jit(
            lambda m=model, z=z: m.apply({"params": params}, z, train=True, method="decode")
        )()
        results[dtype] = z, x_hat
    for exact, rounded in zip(*results.values(), strict=True):
        assert exact.dtype == rounded.dtype == jnp.float32
        error = jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact)
        assert 1e-4 < error < 0.05
        assert jnp.any(rounded.astype(jnp.bfloat16).astype(jnp.float32) != rounded)


@pytest.fixture(scope="module")
def gradients():
    """{remat: (compiled gradient of a squared error, its value)} in float64, and the parameters.

    Compiled with the barriers of rematerialisation kept, as a GPU's backend keeps them: the CPU's
    drops them before it schedules, recomputes all the same, but early, and saves no memory.
    """
    images = make_images(16, 8, 8, dtype=np.float64)
    options = {
        "xla_disable_hlo_passes": "cse_barrier_expander",
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
    }
    found = {}
    with jax.enable_x64(True):
        for remat in (False, True):
            model = make_model(channels=16, multipliers=(1,), attention=(), remat=remat)
            model = model.clone(dtype=jnp.float64)
            params = cast(draw_parameters(model, images, train=True), jnp.float64)

            def loss(params, model=model):
                out = model.apply({"params": params}, images, train=True)
                return jnp.mean((out - images) ** 2)

            compiled = jax.jit(jax.value_and_grad(loss)).lower(params).compile(options)
            found[remat] = compiled, compiled(params)
    return found


def test_rematerialisation_changes_no_path_no_value_and_no_gradient(gradients):
    plain, remat = gradients[False][1], gradients[True][1]
    assert jax.tree.structure(plain) == jax.tree.structure(remat)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_rematerialisation_lowers_the_temporary_memory_of_a_gradient(gradients):
    temporary = {
        remat: compiled.memory_analysis().temp_size_in_bytes
        for remat, (compiled, _) in gradients.items()
    }
    assert temporary[True] < 0.5 * temporary[False], temporary


@pytest.mark.parametrize("init_std", [0.0, 0.05])
def test_initial_values_are_pytorchs_or_normal_as_asked(init_std):
    model = make_model(channels=16, multipliers=(1, 1), blocks=0, dim=16, init_std=init_std)
    init = tiny.jit(lambda key: model.init(key, jnp.zeros((1, 4, 4, 3)), train=True)["params"])
    with jax.default_prng_impl("rbg"):
        params = init(jax.random.key(0))
    layers = [
        (path, layer)
        for path, layer in jax.tree_util.tree_flatten_with_path(
            params, is_leaf=lambda node: "bias" in node
        )[0]
    ]
    for _, layer in layers:
        if "scale" in layer:
            np.testing.assert_array_equal(layer["scale"], 1.0)
            np.testing.assert_array_equal(layer["bias"], 0.0)
            continue
        kernel, bias = layer["kernel"], layer["bias"]
        bound = np.prod(kernel.shape[:-1]) ** -0.5
        deviation = init_std or bound / np.sqrt(3)
        np.testing.assert_allclose(np.std(kernel), deviation, rtol=6 / np.sqrt(kernel.size))
        if init_std:
            np.testing.assert_array_equal(bias, 0.0)
        else:
            assert np.abs(kernel).max() <= bound and np.abs(bias).max() <= bound
            assert np.abs(bias).max() > 0.2 * bound
    assert sum("kernel" in layer for _, layer in layers) > 20


WRONG = [
    ({"channels": 6}, "groups = 4 does not divide a width of 6 channels"),
    ({"channels": 4, "groups": 8}, r"of 4 channels; the widths are channels = 4 .* \(1, 2\)"),
    ({"attention": (0, 2)}, r"attention is at levels \(0, 2\); expected levels from 0 to 1"),
    ({"attention": (-1,)}, r"attention is at levels \(-1,\)"),
    ({"multipliers": (1, 1, 2)}, "images are 8 x 6 pixels; expected multiples .* 4"),
]


@pytest.mark.parametrize("changes, message", WRONG)
def test_shapes_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_model(**changes).init(jax.random.key(0), jnp.zeros((1, 8, 6, 3)), train=True)
