"""PatchGAN: its receptive field, its norms, NumPy's value, one device against eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import NamedSharding, PartitionSpec
from numpy_layers import batch_norm, cast, convolution, draw_parameters, group_norm

from mq_jax.models.discriminator import NORMS, Discriminator


def make_images(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (*shape, 3)).astype(dtype)


def make_discriminator(norm="batch", layers=2, dtype=jnp.float32):
    return Discriminator(channels=8, layers=layers, norm=norm, dtype=dtype)


def make_parameters(model, dtype=jnp.float32):
    return cast(draw_parameters(model, jnp.zeros((1, 48, 48, 3))), dtype)


def logits(images, p, norm, layers):
    """The discriminator, from its description."""
    normalise = {
        "batch": batch_norm,
        "group": lambda x, layer: group_norm(x, layer, x.shape[-1] // 16, epsilon=1e-5),
    }
    x, padding = images, ((1, 1), (1, 1))
    for i in range(layers + 1):
        x = convolution(x, p[f"Conv_{i}"], stride=2 if i < layers else 1, padding=padding)
        if i > 0 and norm != "none":
            x = normalise[norm](x, p[f"GroupNorm_{i - 1}"])
        x = np.where(x > 0, x, 0.2 * x)
    return convolution(x, p[f"Conv_{layers + 1}"], padding=padding)


@pytest.mark.parametrize("norm", NORMS)
def test_logits_are_those_of_the_description(norm):
    images = make_images(3, 12, 20, dtype=np.float64)
    with jax.enable_x64(True):
        model = make_discriminator(norm, dtype=jnp.float64)
        params = make_parameters(model, jnp.float64)
        out = tiny.jit(model.apply)({"params": params}, images)
    assert out.dtype == np.float64 and out.shape == (3, 1, 3, 1)
    expected = logits(images, jax.tree.map(np.asarray, params), norm, layers=2)
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-9)


# 4x4 kernels; a bias where no norm follows, a scale and an offset where one does.
NORMALISED = 2_765_633
WITHOUT = NORMALISED - (128 + 256 + 512)


@pytest.mark.parametrize(
    "norm, total", [("batch", NORMALISED), ("group", NORMALISED), ("none", WITHOUT)]
)
def test_64_channels_and_three_layers_have_2_8_million_parameters(norm, total):
    widths = [3, 64, 128, 256, 512, 1]
    kernels = sum(16 * a * b for a, b in zip(widths[:-1], widths[1:], strict=True))
    between = (128 + 256 + 512) * (1 if norm == "none" else 2)
    model = Discriminator(64, 3, norm, jnp.float32)
    key, images = jax.random.key(0), jnp.zeros((1, 24, 24, 3))
    variables = jax.eval_shape(lambda: model.init(key, images))
    assert set(variables) == {"params"}
    leaves = jax.tree.leaves(variables)
    assert sum(leaf.size for leaf in leaves) == total == kernels + 64 + 1 + between


@pytest.mark.parametrize("layers, width", [(1, 16), (2, 16), (5, 64)])
def test_widths_double_to_at_most_eight_times_the_first(layers, width):
    model = make_discriminator("none", layers)
    side = 3 * 2**layers
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 3))))
    assert shapes["params"][f"Conv_{layers}"]["kernel"].shape[-1] == min(8 * 2**layers, 64)


@pytest.mark.parametrize("layers, field", [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_exactly_its_patch(layers, field):
    model = make_discriminator("none", layers)
    params = cast(draw_parameters(model, jnp.zeros((1, 96, 96, 3))), jnp.float32)
    images = make_images(1, 96, 96)
    row, column = 4, 3 if layers == 3 else 5

    def logit(images):
        return model.apply({"params": params}, images)[0, row, column, 0]

    gradient = np.abs(tiny.jit(jax.grad(logit))(images))[0].sum(-1)
    # One pixel of padding a layer, at the stride of its input.
    stride, before = 2**layers, sum(2**n for n in range(layers + 1)) + 2**layers
    expected = np.zeros((96, 96), bool)
    top, left = row * stride - before, column * stride - before
    expected[top : top + field, left : left + field] = True
    assert top > 0 and left > 0 and expected.sum() == field**2
    np.testing.assert_array_equal(gradient > 0, expected)


@pytest.mark.parametrize("norm, depends", [("batch", True), ("group", False), ("none", False)])
def test_batch_statistics_alone_tie_the_images_of_a_batch(norm, depends):
    model = make_discriminator(norm)
    params = make_parameters(model)
    apply = tiny.jit(lambda images: model.apply({"params": params}, images))
    images = make_images(4, 12, 12)
    others = np.concatenate([images[:1], make_images(3, 12, 12, seed=1)])
    difference = jnp.abs(apply(images) - apply(others))[0].max()
    assert (difference > 1e-3) == depends


def test_eight_devices_give_the_logits_and_gradients_of_one():
    model = make_discriminator("batch")
    params = make_parameters(model)
    images = (
        make_images(16, 12, 12) * np.linspace(0.1, 1.0, 16, dtype=np.float32)[:, None, None, None]
    )
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated, sharded = [NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",))]

    def value(params, images):
        out = model.apply({"params": params}, images)
        return jnp.mean(jnp.maximum(1 - out, 0)), out

    program = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    one = tiny.jit(program)(params, images)
    eight = tiny.jit(program, in_shardings=(replicated, sharded))(params, images)
    assert not eight[0][1].sharding.is_fully_replicated
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("norm", NORMS)
def test_bfloat16_rounds_little_and_logits_stay_float32(norm):
    images, exact = make_images(4, 24, 24), make_discriminator(norm)
    params = make_parameters(exact)
    rounded = make_discriminator(norm, dtype=jnp.bfloat16)
    a, b = [tiny.jit(m.apply)({"params": params}, images) for m in (exact, rounded)]
    assert a.dtype == b.dtype == jnp.float32
    assert 1e-4 < jnp.linalg.norm(a - b) / jnp.linalg.norm(a) < 0.05


def test_initial_values_are_the_originals():
    model = make_discriminator("batch")
    with jax.default_prng_impl("rbg"):
        init = tiny.jit(lambda key: model.init(key, jnp.zeros((1, 12, 12, 3)))["params"])
        params = init(jax.random.key(0))
    for name, layer in params.items():
        if name.startswith("GroupNorm"):
            np.testing.assert_array_equal(layer["bias"], 0.0)
            deviation = np.sqrt(np.mean((layer["scale"] - 1) ** 2))
            np.testing.assert_allclose(deviation, 0.02, rtol=0.6)
            continue
        size = layer["kernel"].size
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.02, rtol=4 / np.sqrt(size))
        if "bias" in layer:
            assert 0 < np.abs(layer["bias"]).max() <= np.prod(layer["kernel"].shape[:-1]) ** -0.5


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_smallest_image_has_one_logit_and_smaller_ones_are_refused(layers):
    model, key, side = make_discriminator("none", layers), jax.random.key(0), 3 * 2**layers
    init = model.init_with_output
    out, _ = jax.eval_shape(lambda: init(key, jnp.zeros((1, side, side + 2**layers, 3))))
    assert out.shape == (1, 1, 2, 1)
    message = f"images are {side + 5} x {side - 1} pixels; .* layers = {layers} .* least {side}"
    with pytest.raises(ValueError, match=message):
        init(key, jnp.zeros((1, side + 5, side - 1, 3)))


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm is 'layer'; expected one of"):
        make_discriminator("layer").init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
