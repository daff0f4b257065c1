"""LPIPS, the learned perceptual distance of Zhang et al. (2018): a pure function of its weights.

The weights are an argument everywhere: XLA would fold constants into the program. Their values
come from lpips_weights.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mq_jax.models import winograd

NETS = ("vgg", "alex")

# The scaling layer of the published metric: ImageNet's mean and deviation, on [-1, 1].
SHIFT = np.float32([-0.030, -0.088, -0.188])
SCALE = np.float32([0.458, 0.448, 0.450])

# Added to squared norms, it bounds the derivatives where a pixel's channels are all dead, since
# sqrt'(0) is infinite. Its power -5/2, in the second derivative, is still finite in float32.
EPSILON = 1e-12

# Where a measure takes Winograd's form: with fewer channels it was no faster, and of larger
# batches of maps its tiles, eight times the maps, would rule what an evaluation takes.
_WIDE = 128
_MOST_OF_TILES = 2**24


class Convolution(NamedTuple):
    """A square convolution, followed by a ReLU."""

    name: str
    size: int
    features: int
    stride: int = 1
    padding: int = 1


class Stage(NamedTuple):
    """A pool of stride 2 (of size 0: none), then convolutions; their output is compared."""

    name: str
    pool: int
    convolutions: tuple[Convolution, ...]


class Architecture(NamedTuple):
    """The stages of a net, and the least height and width at which no feature map is empty."""

    stages: tuple[Stage, ...]
    minimum: int


def _vgg_stages():
    """VGG16 without its last pool (Simonyan and Zisserman, 2015)."""
    stages = []
    for i, (depth, features) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        layers = [Convolution(f"conv{i}_{j}", 3, features) for j in range(1, depth + 1)]
        stages.append(Stage(f"relu{i}_{depth}", 2 if i > 1 else 0, tuple(layers)))
    return tuple(stages)


# AlexNet in the widths of Krizhevsky (2014).
_ALEX_STAGES = (
    Stage("relu1", 0, (Convolution("conv1", 11, 64, stride=4, padding=2),)),
    Stage("relu2", 3, (Convolution("conv2", 5, 192, padding=2),)),
    Stage("relu3", 3, (Convolution("conv3", 3, 384),)),
    Stage("relu4", 0, (Convolution("conv4", 3, 256),)),
    Stage("relu5", 0, (Convolution("conv5", 3, 256),)),
)

_ARCHITECTURES = {"vgg": Architecture(_vgg_stages(), 16), "alex": Architecture(_ALEX_STAGES, 31)}


def architecture(net: str) -> Architecture:
    """The stages of a net.

    Args:
      net: one of NETS.

    Returns:
      The architecture.

    Raises:
      ValueError: on an unknown net.
    """
    if net not in NETS:
        raise ValueError(f"The LPIPS net is {net!r}; expected one of {NETS}.")
    return _ARCHITECTURES[net]


def weight_shapes(net: str) -> dict:
    """The shapes of a net's weights, without a file.

    Args:
      net: one of NETS.

    Returns:
      {stage: {convolution: {"kernel": f32[k, k, C, C'], "bias": f32[C']}, "linear": f32[C']}}
      as jax.ShapeDtypeStruct.

    Raises:
      ValueError: on an unknown net.
    """
    shapes, channels = {}, 3
    for stage in architecture(net).stages:
        shapes[stage.name] = {}
        for name, size, features, *_ in stage.convolutions:
            shapes[stage.name][name] = {
                "kernel": jax.ShapeDtypeStruct((size, size, channels, features), np.float32),
                "bias": jax.ShapeDtypeStruct((features,), np.float32),
            }
            channels = features
        shapes[stage.name]["linear"] = jax.ShapeDtypeStruct((channels,), np.float32)
    return shapes


@jax.named_scope("lpips")
def lpips(
    weights: dict,
    images: jax.Array,
    reconstructions: jax.Array,
    *,
    net: str,
    dtype: jax.typing.DTypeLike = jnp.float32,
    remat: bool = False,
    precision: jax.lax.Precision | None = None,
) -> jax.Array:
    """The LPIPS distance of each pair of images.

    d(x, x_hat) = sum_l mean_hw sum_c w_lc (u_l(x) - u_l(x_hat))_hwc^2, where u_l is the feature
    map of stage l, each pixel's channels scaled to norm 1 (Zhang et al., 2018, equation 1, with
    w >= 0 for its squared weights). All derivatives up to the second are finite.

    Args:
      weights: as load_weights(net) returns them.
      images: f32[B, H, W, 3] in [-1, 1].
      reconstructions: f32[B, H, W, 3], nominally in [-1, 1].
      net: one of NETS.
      dtype: of the convolutions; norms and distances are float32 or wider.
      remat: whether the backward pass recomputes each stage rather than keep its activations.
      precision: of the products; None: JAX's default, which suits a loss; HIGHEST a measure.

    Returns:
      f32[B], at least 0, and 0 for equal images.

    Raises:
      ValueError: on an unknown net, on shapes that differ or are no RGB images, and on images
        smaller than the net can take.
    """
    stages, minimum = architecture(net)
    _check_shapes(images, reconstructions, net, minimum)
    features, distance = _stage_features, _stage_distance
    if remat:
        features = jax.checkpoint(_stage_features, static_argnums=(0, 3))
        distance = jax.checkpoint(_stage_distance)

    # Two passes, not one of 2B: without a backward pass for the images, 3/4 of the FLOPs.
    x, x_hat = (((batch - SHIFT) / SCALE).astype(dtype) for batch in (images, reconstructions))
    total = 0.0
    for stage in stages:
        layers = {layer.name: weights[stage.name][layer.name] for layer in stage.convolutions}
        x = _stage_features(stage, layers, x, precision)
        x_hat = features(stage, layers, x_hat, precision)
        total += distance(weights[stage.name]["linear"], x, x_hat)
    return total


def features(weights: dict, images: jax.Array, *, net: str) -> jax.Array:
    """The last stage's feature map, averaged over its positions: features of whole images.

    A measure: its products are of full float32 on any device.

    Args:
      weights: as load_weights(net) returns them.
      images: f32[B, H, W, 3] in [-1, 1].
      net: one of NETS.

    Returns:
      f32[B, C], at least 0; C is 512 for "vgg" and 256 for "alex".

    Raises:
      ValueError: on an unknown net, or on images smaller than the net can take.
    """
    last = architecture(net).stages[-1].name
    return jnp.mean(feature_map(weights, images, net=net, stage=last), axis=(1, 2))


def feature_map(weights: dict, images: jax.Array, *, net: str, stage: str) -> jax.Array:
    """The feature map of one stage, with products of full float32 on any device.

    Args:
      weights: as load_weights(net) returns them.
      images: f32[B, H, W, 3] in [-1, 1].
      net: one of NETS.
      stage: its name, "relu4_3" say.

    Returns:
      f32[B, h, w, C], at least 0.

    Raises:
      ValueError: on an unknown net or stage, or on images smaller than the net can take.
    """
    stages, minimum = architecture(net)
    names = [each.name for each in stages]
    if stage not in names:
        raise ValueError(f"The stage is {stage!r}; expected one of {', '.join(names)}.")
    _check_shapes(images, images, net, minimum)
    x = (images - SHIFT) / SCALE
    for each in stages[: names.index(stage) + 1]:
        layers = {layer.name: weights[each.name][layer.name] for layer in each.convolutions}
        x = _stage_features(each, layers, x, jax.lax.Precision.HIGHEST)
    return x


def _stage_features(stage, layers, x, precision):
    """dtype[B, H, W, C] -> dtype[B, h, w, C']."""
    if stage.pool:
        x = _max_pool(x, stage.pool)
    for layer in stage.convolutions:
        kernel, bias = (layers[layer.name][name].astype(x.dtype) for name in ("kernel", "bias"))
        x = jax.nn.relu(_convolution(layer, x, kernel, precision) + bias)
    return x


def _convolution(layer, x, kernel, precision):
    """In the form that is fastest on CPUs; a measure, which has no backward pass, has more."""
    _, height, width, _ = x.shape
    measure = precision == jax.lax.Precision.HIGHEST
    square = layer.size == 3 and layer.stride == 1
    if layer.stride == 1 and min(height, width) < (5 if square and measure else 3):
        return _convolution_of_few(x, kernel, precision)
    even = height % 2 == width % 2 == 0
    wide = layer.features >= _WIDE and x.shape[-1] >= _WIDE // 2 and x.size <= _MOST_OF_TILES
    if measure and square and even and wide:
        return winograd.measuring_convolution(x, kernel)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(layer.stride,) * 2,
        padding=((layer.padding,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _convolution_of_few(x, kernel, precision):
    """A padded convolution as one matrix product, for maps of few rows or columns.

    XLA's CPU backend runs those of one or two as convolutions at a fiftieth of its rate.
    """
    size, (_, height, width, channels) = len(kernel), x.shape
    edge = (size // 2,) * 2
    padded = jnp.pad(x, ((0, 0), edge, edge, (0, 0)))
    patches = [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    flat = kernel.reshape(size * size * channels, -1)
    return jnp.matmul(jnp.concatenate(patches, -1), flat, precision=precision)


def _stage_distance(linear, x, x_hat):
    """mean_hw sum_c w_c (u(x) - u(x_hat))_c^2, f32[B]."""
    difference = _unit_norm(x) - _unit_norm(x_hat)
    weighted = jnp.square(difference) * linear.astype(difference.dtype)
    return jnp.mean(jnp.sum(weighted, axis=-1), axis=(1, 2))


def _unit_norm(x):
    """x / ||x|| over the channels, 0 where x is 0; in float32 or wider."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + EPSILON)


def _max_pool(x, size):
    """The maximum over whole windows of size x size, with stride 2."""
    # Of slices: with XLA's window maximum, LPIPS's gradient on VGG took 1.3 times the memory.
    for axis in (1, 2):
        end = (x.shape[axis] - size) // 2 * 2 + 1
        pooled = jax.lax.slice_in_dim(x, 0, end, stride=2, axis=axis)
        for i in range(1, size):
            other = jax.lax.slice_in_dim(x, i, i + end, stride=2, axis=axis)
            pooled = jnp.maximum(pooled, other)
        x = pooled
    return x


def _check_shapes(images, reconstructions, net, minimum):
    if images.shape != reconstructions.shape or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"LPIPS got images {images.shape} and reconstructions {reconstructions.shape}; "
            "expected two equal shapes (B, H, W, 3)."
        )
    height, width = images.shape[1:3]
    if min(height, width) < minimum:
        raise ValueError(
            f"LPIPS got images of {height}x{width} pixels; the net {net!r} needs at least "
            f"{minimum}x{minimum}. Use larger images, or train without LPIPS."
        )
