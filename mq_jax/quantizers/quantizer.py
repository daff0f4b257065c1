"""The contract of a quantizer: who turns z into codes, and codes into what a decoder takes.

A quantizer is a frozen dataclass of numbers and functions; its arrays are arguments. `params` are
what a gradient may move, `state` what none moves (counts, averages, anchors). Which argument is
differentiated says who learns.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


class Quantized(NamedTuple):
    """What a quantizer makes of encodings.

    Attributes:
      indices: i32[...] in [0, K); i32[..., J] where a position has J codes.
      z_q: f32[..., D], what the codes decode to; in training, a mean of it where the decoder
        takes one.
      z_hat: f32[..., D], the same value with the estimator's gradient, for the decoder.
      loss: f32[], the quantizer's own loss, its weights included.
      terms: f32[] by name, what the loss is made of, without weights; empty where it is one term.
      statistics: of this batch, what `advance` takes: sums, minima and draws, which merge over
        parts of a batch; () outside training, and where `advance` takes none.
    """

    indices: jax.Array
    z_q: jax.Array
    z_hat: jax.Array
    loss: jax.Array
    terms: dict[str, jax.Array]
    statistics: Any = ()


class Advanced(NamedTuple):
    """Parameters and state of a quantizer after a step.

    Attributes:
      params: with codewords overwritten, where the quantizer does that.
      state: one step later.
      replaced: bool, a tree like params, true where a number was overwritten, so that an
        optimizer's moments of it start anew; None where nothing ever is.
    """

    params: Any
    state: Any
    replaced: Any = None


class Quantizer(Protocol):
    """What every quantizer offers.

    Attributes:
      size: K, values of an index.
      depth: J, indices of a position; 0 where they have no axis of their own.
      channels: of z, which the encoder gives.
      dim: D, channels of z_q, which the decoder takes.
    """

    size: int
    depth: int
    channels: int
    dim: int

    def init(self, rng: jax.Array) -> tuple[Any, Any]:
        """(params, state) before the first step."""

    def __call__(
        self,
        params: Any,
        state: Any,
        z: jax.Array,
        *,
        straight_through: str,
        train: bool,
        rng: jax.Array | None = None,
    ) -> Quantized:
        """Quantizes z f32[..., channels]; with `train` False exactly decode(encode(z))."""

    def advance(self, params: Any, state: Any, statistics: Any, rng: jax.Array) -> Advanced:
        """Once a step, after the optimizers: statistics have an axis of parts before their own."""

    def fold(self, params: Any, state: Any) -> Any:
        """All that `encode` and `decode` need: what an export keeps."""

    def encode(self, folded: Any, z: jax.Array) -> jax.Array:
        """z f32[..., channels] -> indices, without a gradient."""

    def decode(self, folded: Any, indices: jax.Array) -> jax.Array:
        """indices -> z_q f32[..., D]."""

    def codewords(self, folded: Any) -> jax.Array:
        """What each code stands for by itself, f32[codes, d], for pages on it."""


def codes(quantizer: Quantizer) -> int:
    """How many distinct codes there are: K, of each of the J a position has."""
    return quantizer.size * max(quantizer.depth, 1)


def distinct(indices: jax.Array, quantizer: Quantizer) -> jax.Array:
    """Indices that tell the J codes of a position apart.

    Args:
      indices: as Quantized has them.
      quantizer: whose they are.

    Returns:
      i32, of the same shape, in [0, codes(quantizer)): index k of code j becomes j K + k.
    """
    if not quantizer.depth:
        return indices
    return indices + quantizer.size * jnp.arange(quantizer.depth, dtype=indices.dtype)


def check_channels(z: jax.Array, channels: int) -> None:
    """Refuses encodings that are not as wide as a quantizer takes them.

    Args:
      z: f[..., channels].
      channels: of the quantizer.

    Raises:
      ValueError: where they disagree; else a sum or a broadcast would hide it.
    """
    if z.shape[-1] != channels:
        raise ValueError(f"z has {z.shape[-1]} channels; expected {channels}.")
