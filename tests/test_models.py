"""Networks: shapes, initialisation, and the transposed convolution against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax

from mq_jax.models.convolution import Upsample, nearest_kernel, transposed_convolution
from mq_jax.models.vqvae import AutoEncoder
from mq_jax.quantizers.codebook import KINDS, Codebook
from mq_jax.quantizers.initialiser import uniform_fan_in

LAYOUT = ("NHWC", "HWIO", "NHWC")


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (5, 4), (8, 8)])
def test_the_transposed_convolution_is_the_dilated_one_with_its_gradients(float64, height, width):
    images, kernel = normal(0, 2, height, width, 3), normal(1, 4, 4, 3, 5)
    cotangent = normal(2, 2, 2 * height, 2 * width, 5)

    def dilated(images, kernel):
        padding = ((2, 2), (2, 2))
        return lax.conv_general_dilated(
            images, kernel, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=LAYOUT
        )

    def library(images, kernel):
        return lax.conv_transpose(images, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT)

    def value_and_gradients(function):
        value, pullback = jax.vjp(function, images, kernel)
        return value, *pullback(cotangent)

    got = tiny.jit(lambda: value_and_gradients(transposed_convolution))()
    for reference in (dilated, library):
        want = tiny.jit(lambda reference=reference: value_and_gradients(reference))()
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_it_is_the_transpose_of_the_strided_convolution_with_the_kernel_turned(float64):
    small, large, kernel = normal(0, 2, 3, 4, 3), normal(1, 2, 6, 8, 5), normal(2, 4, 4, 3, 5)
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    strided = lax.conv_general_dilated(
        large, turned, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT
    )
    np.testing.assert_allclose(
        jnp.vdot(transposed_convolution(small, kernel), large), jnp.vdot(small, strided)
    )


@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (5, 4)])
def test_its_nearest_kernel_is_nearest_upsampling_and_a_convolution(float64, height, width):
    images, kernel = normal(0, 2, height, width, 3), normal(1, 3, 3, 3, 5)
    cotangent = normal(2, 2, 2 * height, 2 * width, 5)

    def plain(images, kernel):
        doubled = jnp.repeat(jnp.repeat(images, 2, axis=1), 2, axis=2)
        return lax.conv_general_dilated(
            doubled, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT
        )

    def phases(images, kernel):
        return transposed_convolution(images, nearest_kernel(kernel))

    def value_and_gradients(function):
        value, pullback = jax.vjp(function, images, kernel)
        return value, *pullback(cotangent)

    got, want = [tiny.jit(lambda f=f: value_and_gradients(f))() for f in (phases, plain)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("use_bias", [False, True])
def test_upsampling_doubles_the_sides_and_adds_a_bias_where_asked(use_bias):
    layer = Upsample(5, jax.nn.initializers.ones, use_bias)
    images = normal(0, 2, 3, 4, 6)
    out, variables = tiny.jit(layer.init_with_output)(jax.random.key(0), images)
    assert out.shape == (2, 6, 8, 5)
    assert ("bias" in variables["params"]) == use_bias
    if use_bias:
        shifted = {"params": {**variables["params"], "bias": jnp.arange(5.0)}}
        np.testing.assert_allclose(
            layer.apply(shifted, images) - out, jnp.broadcast_to(jnp.arange(5.0), out.shape), 1e-4
        )


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
        dimension_numbers=LAYOUT,
    )
    before, after = [s["encoder"]["BatchNorm_0"] for s in (batch_stats, updated["batch_stats"])]
    for name, statistic in (("mean", jnp.mean), ("var", jnp.var)):
        batch = statistic(features, axis=(0, 1, 2))
        np.testing.assert_allclose(after[name], 0.9 * before[name] + 0.1 * batch, rtol=1e-4)


# K = 10, D = 4, D_e = 3, 6 hidden.
PARAMETERS = {
    "mlp": 10 * 3 + (3 + 1) * 6 + (6 + 1) * 4,
    "mlp-relu": 10 * 3 + (3 + 1) * 6 + (6 + 1) * 4,
    "linear": 10 * 3 + (3 + 1) * 4,
    "basis": 4 * 4 + (4 + 1) * 10,
    "embedding": 10 * 4,
}


@functools.cache
def make_codebook(kind, size=10, dim=4, embedding_dim=3, hidden=6):
    codebook = Codebook(kind, size, dim, embedding_dim, hidden)
    out, variables = tiny.jit(codebook.init_with_output)(jax.random.key(0))
    return out, variables["params"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_codebook_has_k_words_of_d_channels_and_its_number_of_parameters(kind):
    codebook, params = make_codebook(kind)
    assert codebook.shape == (10, 4)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_codebook_is_its_formula(kind):
    codebook, p = make_codebook(kind)
    e = np.asarray(p["embedding"])

    def dense(x, name):
        return x @ np.asarray(p[name]["kernel"]) + np.asarray(p[name]["bias"])

    expected = {
        "mlp": lambda: dense(np.tanh(dense(e, "net_in")), "net_out"),
        "mlp-relu": lambda: dense(np.maximum(dense(e, "net_in"), 0), "net_out"),
        "linear": lambda: dense(e, "net_out"),
        "basis": lambda: dense(e, "net_out").T,
        "embedding": lambda: e,
    }[kind]()
    np.testing.assert_allclose(codebook, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_start_standard_normal_and_dense_layers_within_their_bounds(kind):
    sizes = {"size": 2000, "dim": 64, "embedding_dim": 32, "hidden": 128}
    _, params = make_codebook(kind, **sizes)
    embedding = np.ravel(params["embedding"])
    standard_error = 1 / np.sqrt(embedding.size)
    np.testing.assert_allclose(embedding.mean(), 0.0, atol=4 * standard_error)
    np.testing.assert_allclose(embedding.var(), 1.0, atol=6 * standard_error)
    for layer in [params[name] for name in params if name != "embedding"]:
        bound = layer["kernel"].shape[0] ** -0.5
        for leaf in layer.values():
            assert np.abs(leaf).max() <= bound
            assert np.abs(leaf).max() > 0.9 * bound
        np.testing.assert_allclose(np.std(layer["kernel"]), bound / np.sqrt(3), rtol=0.05)


def test_an_unknown_codebook_is_refused():
    with pytest.raises(ValueError, match="codebook kind is 'lfq'; expected one of"):
        Codebook("lfq", 10, 4, 3, 6).init(jax.random.key(0))


def test_uniform_fan_in_is_pytorchs_default():
    sample = uniform_fan_in(16)(jax.random.key(0), (10_000,))
    np.testing.assert_allclose([sample.min(), sample.max()], [-0.25, 0.25], rtol=1e-2)
    np.testing.assert_allclose(sample.mean(), 0.0, atol=0.01)
