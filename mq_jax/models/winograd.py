"""The 3x3 convolution of the MQVAE and of measures, by Winograd's filtering on CPUs.

    y = A^T [(G k G^T) * (B^T d B)] A      d: 4 x 4 pixels, y: 2 x 2     (Lavin & Gray, 2016)

One matrix product for each of the 16 entries of a tile takes 4/9 of the FLOPs. The derivatives of
these sums are slower than the sums written for them, which they are replaced by.
"""

import functools

import jax
import jax.numpy as jnp

from mq_jax.models.bilinear import Forms, make_convolution

# With fewer channels the sums cost more than the products save.
_FEWEST_CHANNELS = 32


def convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution with stride 1 and one pixel of padding, of any derivatives.

    Elsewhere than on a CPU, for odd sides and for few channels it is XLA's; on a CPU it
    equals XLA's to rounding, about 1e-6 of the largest value in float32.

    Args:
      images: f[B, H, W, C].
      kernel: f[3, 3, C, F].

    Returns:
      f[B, H, W, F].
    """
    _, height, width, _ = images.shape
    few = min(kernel.shape[2:]) < _FEWEST_CHANNELS
    if few or height % 2 or width % 2:
        return _plain(images, kernel)
    return _convolution(images, kernel)


def measuring_convolution(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same convolution for a measure: of full float32 on any device.

    Args:
      images: f[B, H, W, C] of even sides.
      kernel: f[3, 3, C, F].

    Returns:
      f[B, H, W, F].
    """
    highest = {"precision": jax.lax.Precision.HIGHEST}
    return jax.lax.platform_dependent(
        *(images, kernel),
        cpu=functools.partial(_by_tiles, **highest),
        default=functools.partial(_plain, **highest),
    )


def _plain(images, kernel, precision=None):
    """XLA's convolution."""
    return jax.lax.conv_general_dilated(
        *(images, kernel, (1, 1), "SAME"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _plain_kernel_gradient(images, cotangents):
    """XLA's gradient over the kernel."""
    shape = (3, 3, images.shape[-1], cotangents.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, images.dtype)
    (gradient,) = jax.linear_transpose(functools.partial(_plain, images), kernel)(cotangents)
    return gradient


def _turned(kernel):
    """The kernel that takes cotangents back to images."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


@jax.named_scope("winograd")
def _by_tiles(images, kernel, precision=None):
    """The convolution on a CPU."""
    b, h, w, c = images.shape
    kernels = _tap_sums(_tap_sums(kernel, axis=0), axis=1).reshape(16, c, -1)
    tiles = _pixel_tiles(images).reshape(16, -1, c)
    products = jnp.matmul(tiles, kernels, precision=precision)
    products = products.reshape(4, 4, b, h // 2, w // 2, -1)

    def outputs(sums):
        return sums[0] + sums[1] + sums[2], sums[1] - sums[2] - sums[3]

    rows = [jnp.stack(outputs(row), axis=3) for row in outputs(products)]
    return jnp.stack(rows, axis=2).reshape(b, h, w, -1)


@jax.named_scope("winograd")
def _kernel_gradient_by_tiles(images, cotangents):
    """The gradient over the kernel on a CPU."""
    b, h, w, features = cotangents.shape
    pairs = cotangents.reshape(b, h // 2, 2, w // 2, 2, features)

    def spread(first, second):
        return first, first + second, first - second, -second

    left, right = (spread(pairs[:, :, 0, :, i], pairs[:, :, 1, :, i]) for i in (0, 1))
    tiles = jnp.stack([jnp.stack(spread(*row)) for row in zip(left, right, strict=True)])
    # Channels of the images last: the larger operand is then read in its own order.
    products = jnp.einsum(
        "anf,anc->afc",
        tiles.reshape(16, -1, features),
        _pixel_tiles(images).reshape(16, -1, images.shape[-1]),
    )
    products = products.reshape(4, 4, features, -1)
    return _taps_of(_taps_of(products, axis=0), axis=1).swapaxes(2, 3)


def _tap_sums(kernel, axis):
    """G k: of three taps, what each of four sums of pixels is multiplied by."""
    first, second, third = jnp.moveaxis(kernel, axis, 0)
    # Written out: as a product with G, of three columns, it takes five times as long.
    outer, inner = 0.5 * (first + third), 0.5 * second
    return jnp.stack([first, outer + inner, outer - inner, third], axis=axis)


def _taps_of(sums, axis):
    """G^T s, the transpose of _tap_sums."""
    first, second, third, fourth = jnp.moveaxis(sums, axis, 0)
    outer = 0.5 * (second + third)
    return jnp.stack([first + outer, 0.5 * (second - third), outer + fourth], axis=axis)


def _pixel_tiles(images):
    """B^T d B of all tiles: f[B, H, W, C] -> f[4, 4, B, H/2, W/2, C]."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Kept apart: fused, the second sums would make the first ones anew, four times.
    rows = jax.lax.optimization_barrier(_sums(padded, axis=1, out=0))
    return _sums(rows, axis=3, out=1)


def _sums(pixels, axis, out):
    """The four sums of four neighbouring rows, every second row, stacked on the axis `out`."""
    even, odd = jnp.moveaxis(pixels.reshape(_halved(pixels.shape, axis)), axis + 1, 0)
    now, then = slice(None, -1), slice(1, None)
    of = lambda part, side: part[(slice(None),) * axis + (side,)]  # noqa: E731
    first, second, third, fourth = of(even, now), of(odd, now), of(even, then), of(odd, then)
    sums = (first - third, second + third, third - second, second - fourth)
    return jnp.stack(sums, axis=out)


def _halved(shape, axis):
    return (*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :])


def _with_transposes(convolution, kernel_gradient):
    """The Forms of a convolution whose transpose over the images is one with the kernel turned."""
    turned = lambda cotangents, kernel: convolution(cotangents, _turned(kernel))  # noqa: E731
    return Forms(convolution, turned, kernel_gradient)


_convolution = make_convolution(
    "winograd",
    _with_transposes(_plain, _plain_kernel_gradient),
    _with_transposes(_by_tiles, _kernel_gradient_by_tiles),
)
