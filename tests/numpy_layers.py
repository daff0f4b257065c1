"""Layers of the networks in NumPy, for tests to re-derive them from; float64 throughout."""

import jax
import jax.numpy as jnp
import numpy as np


def draw_parameters(model, *arguments, seed: int = 0, **keywords):
    """Parameters of a module at a generic point, f64: scales around 1, all else around 0.

    Drawn by NumPy, since compiling the initialisers would take longer than most tests.
    """
    key, rng = jax.random.key(0), np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(key, *arguments, **keywords))["params"]

    def draw(path, leaf):
        return float(path[-1].key == "scale") + rng.uniform(-0.5, 0.5, leaf.shape)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def cast(tree, dtype):
    """The tree as JAX arrays of a dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def convolution(x, layer, stride=1, padding=None):
    """A convolution f[B, H, W, C] by {kernel, bias}; padding ((top, bottom), (left, right))."""
    kernel = layer["kernel"]
    size = len(kernel)
    padding = ((size // 2, size // 2),) * 2 if padding is None else padding
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = [(side - size) // stride + 1 for side in x.shape[1:3]]
    out = np.zeros((len(x), height, width, kernel.shape[-1])) + layer.get("bias", 0.0)
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + stride * (height - 1) + 1, stride)
            columns = slice(j, j + stride * (width - 1) + 1, stride)
            out += x[:, rows, columns] @ kernel[i, j]
    return out


def group_norm(x, layer, groups, epsilon=1e-6):
    """GroupNorm with the statistics of each image's groups."""
    parts = x.reshape(*x.shape[:3], groups, -1)
    return (
        _standardised(parts, (1, 2, 4), epsilon).reshape(x.shape) * layer["scale"] + layer["bias"]
    )


def batch_norm(x, layer, epsilon=1e-5):
    """BatchNorm with the statistics of the batch."""
    return _standardised(x, (0, 1, 2), epsilon) * layer["scale"] + layer["bias"]


def layer_norm(x, layer, epsilon=1e-5):
    """LayerNorm over the channels."""
    return _standardised(x, (3,), epsilon) * layer["scale"] + layer["bias"]


def _standardised(x, axes, epsilon):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)
