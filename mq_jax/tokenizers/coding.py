"""Images to codes and codes to images: the pure functions of a trained model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from mq_jax.images.scale import from_uint8, to_uint8
from mq_jax.models.extent import within
from mq_jax.quantizers.quantizer import Quantizer


class Weights(NamedTuple):
    """A trained model's arrays.

    Attributes:
      theta: parameters of the auto-encoder.
      batch_stats: BatchNorm's running statistics, empty without.
      codebook: what the quantizer folds to: of most kinds the codewords f32[K, D], hyper-net and
        averages folded away; a tree of arrays where there are several quantizers or a head;
        without arrays where codes are arithmetic.
    """

    theta: Any
    batch_stats: Any
    codebook: Any


class Coding(NamedTuple):
    """Both directions, without state.

    Where a position has J codes, indices have them on a last axis: i32[B, h, w, J].

    Attributes:
      encode: (weights, images u8 or f32 in [-1, 1], [B, H, W, 3]) -> indices i32[B, h, w].
      pixels: (weights, indices i[B, h, w]) -> x_hat f32[B, H, W, 3], not clipped.
      decode: (weights, indices i[B, h, w]) -> images u8[B, H, W, 3].
      encode_within: (weights, images, sizes i32[B, 2]) -> indices; each image has the codes that it
        has alone, and what lies beyond its own size means nothing.
    """

    encode: Callable[[Weights, jax.Array], jax.Array]
    pixels: Callable[[Weights, jax.Array], jax.Array]
    decode: Callable[[Weights, jax.Array], jax.Array]
    encode_within: Callable[[Weights, jax.Array, jax.Array], jax.Array]


def make_coding(autoencoder: nn.Module, quantizer: Quantizer) -> Coding:
    """The two directions of a tokenizer; pure.

    Args:
      autoencoder: module with `encode` and `decode`.
      quantizer: what turns encodings into codes; of weights what it folded is read.

    Returns:
      A Coding: in evaluation mode, so that decode(encode(x)) is what evaluation reconstructs.
    """

    def run(weights, method, argument):
        variables = {"params": weights.theta, "batch_stats": weights.batch_stats}
        return autoencoder.apply(variables, argument, train=False, method=method)

    def encode(weights, images):
        x = from_uint8(images) if images.dtype == "uint8" else images
        return quantizer.encode(weights.codebook, run(weights, "encode", x))

    def pixels(weights, indices):
        return run(weights, "decode", quantizer.decode(weights.codebook, indices))

    def decode(weights, indices):
        return to_uint8(pixels(weights, indices))

    def encode_within(weights, images, sizes):
        with within(sizes, images.shape[1:3]):
            return encode(weights, images)

    return Coding(encode, pixels, decode, encode_within)
