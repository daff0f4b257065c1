"""The Inception network of 2015 up to pool3, in the form that FID's literature uses.

Szegedy et al. (2016) with the changes of the network that FID was defined with: average pools do
not count the padding, and the last block pools by maximum. BatchNorm is folded into the
convolutions. The weights are an argument: XLA would fold constants into the program. Products are
of full float32 on any device, since the features are a measure.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The side that images are resized to, and the channels of pool3.
SIDE = 299
DIM = 2048

# sFID's features: the first channels of a block's output, which are those of its branch1x1. The
# block is `mixed_6` of the network of 2015, whose `mixed` is Mixed_5b and `mixed_3` Mixed_6a.
SPATIAL_BLOCK = "Mixed_6d"
SPATIAL_CHANNELS = 7
SPATIAL_DIM = 17 * 17 * SPATIAL_CHANNELS


class Convolution(NamedTuple):
    """A convolution, followed by a ReLU; padded to keep the size where it is asked for."""

    name: str
    features: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Pool(NamedTuple):
    """A 3x3 pool; of stride 1 it is padded to keep the size."""

    kind: str
    stride: int


class Fork(NamedTuple):
    """Convolutions of the same input, one beside another in the output."""

    parts: tuple[Convolution, ...]


class Block(NamedTuple):
    """Branches of the same input, one beside another in the output; the stem has one branch."""

    name: str
    branches: tuple[tuple[Convolution | Pool | Fork, ...], ...]


_AVERAGE, _MAX, _HALVE = Pool("average", 1), Pool("max", 1), Pool("max", 2)


def _chain(name, *layers):
    """name_1, name_2, ... of (features, size) pairs."""
    return tuple(Convolution(f"{name}_{i}", *layer) for i, layer in enumerate(layers, 1))


def _reduction(name, features):
    """A 3x3 convolution of stride 2 over whole windows."""
    return Convolution(name, features, (3, 3), stride=2, padded=False)


def _block_a(name, pooled):
    """At 35 x 35."""
    return Block(
        name,
        (
            (Convolution("branch1x1", 64),),
            _chain("branch5x5", (48,), (64, (5, 5))),
            _chain("branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3))),
            (_AVERAGE, Convolution("branch_pool", pooled)),
        ),
    )


def _block_c(name, width):
    """At 17 x 17."""
    row, column = (1, 7), (7, 1)
    return Block(
        name,
        (
            (Convolution("branch1x1", 192),),
            _chain("branch7x7", (width,), (width, row), (192, column)),
            _chain(
                "branch7x7dbl", (width,), (width, column), (width, row), (width, column), (192, row)
            ),
            (_AVERAGE, Convolution("branch_pool", 192)),
        ),
    )


def _block_e(name, pool):
    """At 8 x 8."""

    def fork(prefix):
        across = Convolution(f"{prefix}a", 384, (1, 3))
        return Fork((across, Convolution(f"{prefix}b", 384, (3, 1))))

    return Block(
        name,
        (
            (Convolution("branch1x1", 320),),
            (Convolution("branch3x3_1", 384), fork("branch3x3_2")),
            (*_chain("branch3x3dbl", (448,), (384, (3, 3))), fork("branch3x3dbl_3")),
            (pool, Convolution("branch_pool", 192)),
        ),
    )


_STEM = (
    _reduction("Conv2d_1a_3x3", 32),
    Convolution("Conv2d_2a_3x3", 32, (3, 3), padded=False),
    Convolution("Conv2d_2b_3x3", 64, (3, 3)),
    _HALVE,
    Convolution("Conv2d_3b_1x1", 80),
    Convolution("Conv2d_4a_3x3", 192, (3, 3), padded=False),
    _HALVE,
)

_POOLED = {"b": 32, "c": 64, "d": 64}
_WIDTHS = {"b": 128, "c": 160, "d": 160, "e": 192}

BLOCKS = (
    Block("", (_STEM,)),
    *(_block_a(f"Mixed_5{letter}", pooled) for letter, pooled in _POOLED.items()),
    Block(
        "Mixed_6a",
        (
            (_reduction("branch3x3", 384),),
            (
                *_chain("branch3x3dbl", (64,), (96, (3, 3))),
                _reduction("branch3x3dbl_3", 96),
            ),
            (_HALVE,),
        ),
    ),
    *(_block_c(f"Mixed_6{letter}", width) for letter, width in _WIDTHS.items()),
    Block(
        "Mixed_7a",
        (
            (Convolution("branch3x3_1", 192), _reduction("branch3x3_2", 320)),
            (
                *_chain("branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1))),
                _reduction("branch7x7x3_4", 192),
            ),
            (_HALVE,),
        ),
    ),
    _block_e("Mixed_7b", _AVERAGE),
    _block_e("Mixed_7c", _MAX),
)


def weight_shapes() -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """The shapes of the weights, without a file.

    Returns:
      {"Mixed_5b.branch1x1": {"kernel": f32[kh, kw, C, C'], "bias": f32[C']}, ...}: each
      convolution by its block and its name.
    """
    shapes, channels = {}, 3

    def walk(block, layer, channels):
        if isinstance(layer, Pool):
            return channels
        if isinstance(layer, Fork):
            return sum(walk(block, part, channels) for part in layer.parts)
        shapes[_key(block, layer)] = {
            "kernel": jax.ShapeDtypeStruct((*layer.size, channels, layer.features), np.float32),
            "bias": jax.ShapeDtypeStruct((layer.features,), np.float32),
        }
        return layer.features

    for block in BLOCKS:
        widths = []
        for branch in block.branches:
            width = channels
            for layer in branch:
                width = walk(block, layer, width)
            widths.append(width)
        channels = sum(widths)
    return shapes


def inception_features(weights: dict, images: jax.Array) -> jax.Array:
    """The activations of pool3, FID's features (Heusel et al., 2017).

    Args:
      weights: as inception_weights.load_weights returns them.
      images: f32[B, H, W, 3] in [-1, 1], of any size: resized to 299 x 299 bilinearly with
        half-pixel centres and without antialiasing.

    Returns:
      f32[B, 2048].
    """
    shape = (len(images), SIDE, SIDE, 3)
    x = jax.image.resize(images, shape, "bilinear", antialias=False)
    *_, (_, last) = _maps(weights, x)
    return jnp.mean(last, axis=(1, 2))


def inception_activations(weights: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The activations of pool3 and the spatial ones of sFID (Nash et al., 2021).

    Args:
      weights: as inception_weights.load_weights returns them.
      x: f32[B, h, w, 3], what the first convolution sees; of 299 x 299 in a measure.

    Returns:
      pool3 f32[B, 2048], and the first 7 channels of Mixed_6d's branch1x1, f32[B, 2023].
    """
    maps = dict(_maps(weights, x))
    spatial = maps[SPATIAL_BLOCK][..., :SPATIAL_CHANNELS]
    return jnp.mean(maps[BLOCKS[-1].name], axis=(1, 2)), spatial.reshape(len(x), -1)


def _maps(weights, x):
    """The name of each block and its output, f32[B, h, w, C], in order."""
    for block in BLOCKS:
        x = jnp.concatenate([_branch(weights, block, b, x) for b in block.branches], axis=-1)
        yield block.name, x


def _branch(weights, block, layers, x):
    for layer in layers:
        x = _apply(weights, block, layer, x)
    return x


def _apply(weights, block, layer, x):
    """One layer, f32[B, h, w, C] -> f32[B, h', w', C']."""
    if isinstance(layer, Fork):
        return jnp.concatenate([_apply(weights, block, p, x) for p in layer.parts], axis=-1)
    if isinstance(layer, Pool):
        return _pool(layer, x)
    own = weights[_key(block, layer)]
    x = jax.lax.conv_general_dilated(
        x,
        own["kernel"],
        window_strides=(layer.stride,) * 2,
        padding=[((size - 1) // 2 * layer.padded,) * 2 for size in layer.size],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jax.nn.relu(x + own["bias"])


def _pool(layer, x):
    window, strides = (1, 3, 3, 1), (1, layer.stride, layer.stride, 1)
    edge = (1, 1) if layer.stride == 1 else (0, 0)
    padding = ((0, 0), edge, edge, (0, 0))
    if layer.kind == "max":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)

    def total(values):
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, window, strides, padding)

    return total(x) / total(jnp.ones_like(x[:1, ..., :1]))


def _key(block, layer):
    return f"{block.name}.{layer.name}".lstrip(".")
