"""A convolution that a CPU computes in one form and any other device in XLA's own.

As a primitive, since only that is lowered for one platform without a trace of the others, and keeps
for the backward pass what the function needs and not what each form would. It is linear in images
and in kernel; its transposes are linear in their arguments too, and are each other's transposes.
So any order and mode of differentiation stays among the three.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


class Forms(NamedTuple):
    """One way to compute a convolution and its transposes.

    Attributes:
      convolution: (images, kernel) -> outputs.
      to_images: (cotangents of the outputs, kernel) -> cotangents of the images.
      to_kernel: (images, cotangents of the outputs) -> cotangents of the kernel.
    """

    convolution: Callable[[jax.Array, jax.Array], jax.Array]
    to_images: Callable[[jax.Array, jax.Array], jax.Array]
    to_kernel: Callable[[jax.Array, jax.Array], jax.Array]


def make_convolution(
    name: str, elsewhere: Forms, on_cpu: Forms
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A convolution as primitives.

    Args:
      name: of the first; those of its transposes begin with it.
      elsewhere: XLA's own. What is mapped over a further axis takes it on a CPU too.
      on_cpu: equal to it, to rounding.

    Returns:
      (images, kernel) -> outputs.
    """
    forward, to_images, to_kernel = [
        _primitive(f"{name}_{part}", *forms)
        for part, *forms in zip(Forms._fields, elsewhere, on_cpu, strict=True)
    ]
    # Each is transposed over its first argument, and over its second.
    ad.defbilinear(
        forward,
        lambda outputs, images, kernel: to_images.bind(outputs, kernel),
        lambda outputs, images, kernel: to_kernel.bind(images, outputs),
    )
    ad.defbilinear(
        to_images,
        lambda images, outputs, kernel: forward.bind(images, kernel),
        lambda images, outputs, kernel: to_kernel.bind(images, outputs),
    )
    ad.defbilinear(
        to_kernel,
        lambda kernel, images, outputs: to_images.bind(outputs, kernel),
        lambda kernel, images, outputs: forward.bind(images, kernel),
    )
    return forward.bind


def _primitive(name, elsewhere, on_cpu):
    """A primitive without derivatives."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind))

    def describe(*arguments):
        out = jax.eval_shape(elsewhere, *arguments)
        return jax.core.ShapedArray(out.shape, out.dtype)

    primitive.def_abstract_eval(describe)
    batching.primitive_batchers[primitive] = lambda arguments, axes: (
        jax.vmap(elsewhere, axes)(*arguments),
        0,
    )
    lowered = functools.partial(mlir.lower_fun, multiple_results=False)
    mlir.register_lowering(primitive, lowered(elsewhere))
    mlir.register_lowering(primitive, lowered(on_cpu), platform="cpu")
    return primitive
