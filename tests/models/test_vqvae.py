"""SQ-VAE's auto-encoder: shapes, initialisation, statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax

from mq_jax.models.convolution import transposed_convolution
from mq_jax.models.vqvae import AutoEncoder


@pytest.mark.parametrize("channels", [(3,), (5, 3), (3, 5, 7)])
@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_auto_encoder_halves_the_sides_once_a_channel_width_and_restores_them(
    channels, blocks, layer_norm
):
    model = AutoEncoder(channels, blocks, dim=6, layer_norm=layer_norm, init_std=0.02)
    factor = 2 ** len(channels)
    images = jax.ShapeDtypeStruct((2, 3 * factor, 2 * factor, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: model.init(key, x, train=True), images)

    def halves(variables, images):
        z = model.apply(variables, images, train=False, method="encode")
        return z, model.apply(variables, z, train=False, method="decode")

    z, reconstructions = jax.eval_shape(halves, variables, images)
    assert model.downsampling == factor
    assert z.shape == (2, 3, 2, 6)
    assert reconstructions.shape == images.shape
    encoder = variables["params"]["encoder"]
    strided = [encoder[f"Conv_{i}"]["kernel"].shape for i in range(len(channels))]
    assert strided == [(4, 4, *pair) for pair in zip((3, *channels[:-1]), channels, strict=True)]
    assert sum("ResidualBlock" in name for name in encoder) == blocks
    assert ("LayerNorm_0" in encoder) == layer_norm


def test_the_decoder_mirrors_the_widths_of_the_encoder():
    model = AutoEncoder((3, 5, 7), 1, dim=6, layer_norm=True, init_std=0.02)
    images, key = jnp.zeros((1, 8, 8, 3)), jax.random.key(0)
    variables = jax.eval_shape(lambda: model.init(key, images, train=True))
    decoder = variables["params"]["decoder"]
    names = ("Upsample_0", "Upsample_1", "head")
    kernels = [decoder[name]["kernel"].shape for name in names]
    assert kernels == [(4, 4, 7, 5), (4, 4, 5, 3), (4, 4, 3, 3)]


def test_kernels_start_normal_with_the_given_deviation_and_biases_at_zero():
    model = AutoEncoder((32,), 1, dim=32, layer_norm=True, init_std=0.02)
    init = tiny.jit(lambda key: model.init(key, jnp.zeros((1, 4, 4, 3)), train=True)["params"])
    leaves = jax.tree_util.tree_flatten_with_path(init(jax.random.key(0)))[0]
    for path, leaf in leaves:
        if path[-1].key == "kernel":
            np.testing.assert_allclose(jnp.std(leaf), 0.02, rtol=0.1)
            np.testing.assert_allclose(jnp.mean(leaf), 0.0, atol=4 * 0.02 / np.sqrt(leaf.size))
        else:
            np.testing.assert_array_equal(leaf, float(path[-1].key == "scale"))


def test_kernels_and_biases_start_as_pytorchs_where_no_deviation_is_given():
    """Uniform in +-1/sqrt(fan_in), that of a transposed convolution being of its outputs."""
    model = AutoEncoder((16, 32), 1, dim=32, layer_norm=True, init_std=0.0)
    init = tiny.jit(lambda key: model.init(key, jnp.zeros((1, 4, 4, 3)), train=True)["params"])
    with jax.default_prng_impl("rbg"):
        params = init(jax.random.key(0))
    found = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=lambda node: "bias" in node or "kernel" in node
    )
    layers = {jax.tree_util.keystr(path): layer for path, layer in found[0] if "kernel" in layer}
    assert len(layers) == 12
    for name, layer in layers.items():
        transposed = "Upsample" in name or "head" in name
        taps = layer["kernel"].shape[:2] + layer["kernel"].shape[3 if transposed else 2 :][:1]
        bound = np.prod(taps) ** -0.5
        for values in layer.values():
            assert 0.5 * bound < np.abs(values).max() <= bound
            deviation, rtol = bound / np.sqrt(3), 6 / np.sqrt(values.size)
            np.testing.assert_allclose(np.std(values), deviation, rtol=rtol)
            np.testing.assert_allclose(
                np.mean(values), 0.0, atol=4 * deviation / np.sqrt(values.size)
            )


def test_pixels_are_the_last_layer_and_need_its_parameters_alone():
    model = tiny.make_objective(deep=True).autoencoder
    theta, _, batch_stats = tiny.make_parameters(tiny.make_objective(deep=True))
    variables = {"params": theta, "batch_stats": batch_stats}
    head = theta["decoder"]["head"]

    @tiny.jit
    def parts(images):
        z = model.apply(variables, images, train=False, method="encode")
        features = model.apply(variables, z, train=False, method="features")
        alone = {"params": {"decoder": {"head": head}}}
        pixels = model.apply(alone, features, method="pixels")
        whole = model.apply(variables, z, train=False, method="decode")
        return features, pixels, whole, model.apply(variables, images, train=False)

    features, pixels, *wholes = parts(tiny.make_images(2, seed=0))
    assert features.shape == (2, 4, 4, 4)
    for whole in wholes:
        np.testing.assert_allclose(pixels, whole, rtol=1e-5, atol=1e-5)
    expected = transposed_convolution(features, head["kernel"]) + head["bias"]
    np.testing.assert_allclose(pixels, expected, rtol=1e-5, atol=1e-5)


def test_layer_norm_gives_every_encoding_mean_zero_and_norm_root_d():
    objective = tiny.make_objective()
    theta, _, batch_stats = tiny.make_parameters(objective)
    theta["encoder"]["LayerNorm_0"] = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    encode = functools.partial(objective.autoencoder.apply, train=False, method="encode")
    variables = {"params": theta, "batch_stats": batch_stats}
    z = tiny.jit(encode)(variables, tiny.make_images(2, seed=0))
    np.testing.assert_allclose(jnp.mean(z, axis=-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 2.0, rtol=1e-3)


def test_running_statistics_move_a_tenth_of_the_way_to_the_batch():
    objective, images = tiny.make_objective(), tiny.make_images(4, seed=0)
    theta, _, batch_stats = tiny.make_parameters(objective)
    encode = functools.partial(
        objective.autoencoder.apply, train=True, method="encode", mutable=["batch_stats"]
    )
    _, updated = tiny.jit(encode)({"params": theta, "batch_stats": batch_stats}, images)
    features = lax.conv_general_dilated(
        images,
        theta["encoder"]["Conv_0"]["kernel"],
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    before, after = [s["encoder"]["BatchNorm_0"] for s in (batch_stats, updated["batch_stats"])]
    for name, statistic in (("mean", jnp.mean), ("var", jnp.var)):
        batch = statistic(features, axis=(0, 1, 2))
        np.testing.assert_allclose(after[name], 0.9 * before[name] + 0.1 * batch, rtol=1e-4)
